"""The smoke study with means of checkpoints, a learning rate for each base, replay and losses of tuned models, for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
import torch
from safetensors.torch import load_file

from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.report.findings import learning_rates
from workflow.storage import tables
from workflow.study import token_axis

pytestmark = pytest.mark.slow
MEANS = {"source": "merged", "family": "tiny", "last": 2, "steps": [10, 20]}
OWN = {"learning_rate": [1.0e-2, 1.0e-3, 1.0e-9], "search": {"validation": 8, "per": "base"}}


def widened(place: Path) -> dict[str, Any]:
    """The smoke study with means of two checkpoints at steps 10 and 20, tuned as all bases by a rate of their own."""
    study = running.configured(place)
    study["families"]["means"] = dict(MEANS)
    for block in study["models"]:
        block["families"] = ["tiny"]
    study["recipes"]["own"] = study["recipes"]["full"] | OWN
    study["models"].append({"train": ["mini_inference"], "recipes": ["own"]})
    study["figures"].append("learning_rates")
    study["recipes"]["kept"] = study["recipes"]["full"] | {"replay": 0.5}
    study["models"].append({"train": ["mini_inference"], "recipes": ["kept"], "families": ["tiny"], "steps": [20]})
    study["forgetting"] = ["ppl_clm", "answers"]
    running.configure(place, study)
    return study


def test_means_and_own_rates_join_a_finished_study(changed: Path) -> None:
    widened(changed)
    planned = running.planned(changed)
    assert planned["average"] == 2 and planned["fetch"] == 3 and "pretrain" not in planned
    ended = running.run(changed)
    assert ended.returncode == 0, ended.stderr
    results = changed / "study/results"

    pretrained = changed / "study/resources/pretrained/family=tiny"
    steps = [load_file(pretrained / f"step={step}/model.safetensors") for step in (10, 20)]
    mean = load_file(changed / "study/resources/averaged/family=means/step=20/model.safetensors")
    expected = {name: ((steps[0][name].double() + steps[1][name].double()) / 2).float() for name in steps[1]}
    assert mean.keys() == expected.keys() and all(torch.equal(mean[name], expected[name]) for name in mean)

    scores = tables.read(results / "scores.parquet")
    tuned = scores[scores["recipe"] == "own"]
    assert set(map(tuple, tuned[["family", "step"]].values)) == {
        ("tiny", 0),
        ("tiny", 20),
        ("means", 10),
        ("means", 20),
    }
    tokens = scores.groupby(["family", "step"])["tokens"].first()
    assert tokens["means", 20] == tokens["tiny", 20] == 20 * 4 * 64
    analysis = tables.read(results / "analysis.parquet")
    of_means = analysis[analysis["family"] == "means"]
    assert {"performance", "tuning_difference"} <= set(of_means["analysis"])
    assert not {"turning_point", "extrapolation", "decline", "signal_to_noise"} & set(of_means["analysis"])
    recommended = tables.read(results / "recommendations.parquet")
    bases = recommended[(recommended["topic"] == "base") & (recommended["recipe"] == "own")]
    assert set(map(tuple, bases[["family", "step"]].values)) >= {("tiny", 20), ("means", 20)}

    choices = tables.read(results / "own_choices.parquet")
    chosen = choices[choices["chosen"]]
    assert len(chosen) == 4 and (chosen["learning_rate"] > 1e-9).all()
    losses = choices.groupby(["family", "step"])["loss"].min()
    assert all(losses[row.family, row.step] == row.loss for row in chosen.itertuples())
    assert (results / "figures/learning_rates.pdf").is_file()
    findings = tables.read(results / "findings.parquet")
    assert len(findings[findings["finding"] == learning_rates.__name__.split(".")[-1]]) == 2, "one for each family"

    forgotten = tables.read(results / "forgetting.parquet")
    models = forgotten[forgotten["group"].isna()].groupby(["family", "step", "train", "recipe"])["indicator"].apply(set)
    assert set(models.index) == {
        *((family, step, "mini_inference", "own") for family, step in chosen[["family", "step"]].values),
        ("tiny", 20, "mini_inference", "full"), ("tiny", 20, "mini_inference", "kept"), ("tiny", 20, "mini_facts", "lora"),
    }  # fmt: skip
    assert all(names == {"ppl_clm", "answers"} for names in models)
    measured = tables.read(results / "indicators.parquet")
    base = measured[(measured["indicator"] == "ppl_clm") & (measured["family"] == "tiny") & (measured["step"] == 20)]
    base = base[base["draw"].isna()]
    line = forgotten[
        (forgotten["indicator"] == "ppl_clm") & (forgotten["recipe"] == "kept") & forgotten["group"].isna()
    ]
    assert line["base"].item() == pytest.approx(base["nll"].sum() / np.log(2) / base["bytes"].sum())
    assert (findings["finding"] == "forgetting").any()
    part = results / "histories/family=tiny/step=20/train=mini_inference/format=default/recipe=kept/seed=0/part.parquet"
    assert tables.recorded(part)["replayed"] == 24 and tables.recorded(part)["examples"] == 24
    assert running.planned(changed) == {}


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({"family": "large"}, "config.yaml: families/means/family: 'large' is not allowed; allowed: tiny"),
        ({"last": 4}, "config.yaml: families/means/last: 4 is not allowed; allowed: 3 or less, as many as 'tiny' has"),
        ({"steps": [0]}, "config.yaml: families/means/steps: there is no step 0; allowed: 10, 20"),
        ({"last": 1}, "config.yaml: families/means/last: 1 is not allowed; allowed: 2 or more"),
    ],
)
def test_means_that_cannot_be_made_are_refused_at_the_start(block: dict[str, Any], line: str) -> None:
    config = running.SMOKE | {"families": running.SMOKE["families"] | {"means": MEANS | block}}
    with pytest.raises(StudyError) as error:
        config_checks.read(config)
    assert line in str(error.value).splitlines()


def test_steps_and_tokens_of_means() -> None:
    means = {key: value for key, value in MEANS.items() if key != "steps"}
    study = config_checks.read(running.SMOKE | {"families": running.SMOKE["families"] | {"means": means}})
    assert study["families"]["means"]["steps"] == [20], "the last step of the family alone"
    assert token_axis.of_family("means", study["families"]["means"]) == {20: 20 * 4 * 64}
