"""Several tasks in one fine-tuning, in the real Snakefile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import running

MIX = "mini_inference.75-mini_summary.25"
STUDY: dict[str, Any] = {
    "families": {"local": {"source": "folder", "path": "../steps"}},
    "recipes": {
        "full": {"examples": 8, "epochs": 1, "batch": 4, "max_tokens": 96, "learning_rate": 1.0e-3},
        "searched": {
            **{"examples": 4, "epochs": 1, "batch": 4, "max_tokens": 96},
            **{"learning_rate": [1.0e-3, 1.0e-4], "search": {"validation": 4}},
        },
    },
    "models": [
        {"train": ["mini_inference", {"mix": {"mini_inference": 3, "mini_summary": 1}}], "recipes": ["full"]},
        {"train": {"mix": {"mini_facts": 1, "mini_summary": 1}, "name": "halves"}, "recipes": ["searched"]},
    ],
    "suites": {
        "home": {
            "tests": {
                "mini_inference": ["mini_inference"],
                "mini_summary": ["mini_summary"],
                "mini_facts": ["mini_facts"],
            },
            "limit": 6,
            "new_tokens": 4,
        }
    },
    "statistics": {"resamples": 100},
    "summaries": ["datasets", "templates"],
    "estimate": {"parameters": {"local": 1.0e5}},
}


@pytest.fixture(scope="module")
def finished(checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study after a run; not to be changed."""
    place = running.lay_out(tmp_path_factory.mktemp("mixes") / "place", STUDY)
    shutil.copytree(checkpoints["llama"].path, place / "steps/step10")
    ended = running.run(place)
    assert ended.returncode == 0, ended.stderr
    return place


def test_each_task_of_a_mix_is_tested_at_home_with_its_own_metric(finished: Path) -> None:
    scores = pd.read_parquet(finished / "study/results/scores.parquet")
    primary = scores[scores["primary"]].groupby("train")
    assert primary.apply(lambda rows: sorted(zip(rows["test"], rows["metric"], strict=True))).to_dict() == {
        "none": [("mini_facts", "accuracy"), ("mini_inference", "accuracy"), ("mini_summary", "rouge_l")],
        "mini_inference": [("mini_inference", "accuracy")],
        MIX: [("mini_inference", "accuracy"), ("mini_summary", "rouge_l")],
        "halves": [("mini_facts", "accuracy"), ("mini_summary", "rouge_l")],
    }


def test_it_is_trained_on_its_share_of_each_task(finished: Path) -> None:
    keys = f"family=local/step=10/train={MIX}/format=default/recipe=full/seed=0"
    lineage = json.loads((finished / "study/resources/models" / keys / "lineage.json").read_text())
    assert lineage["examples"] == 8
    assert lineage["recipe_settings"]["mix"] == {"mini_inference": 0.75, "mini_summary": 0.25}
    tried = "family=local/step=10/train=halves/format=default/recipe=searched/rate=1/part.parquet"
    held = pyarrow.parquet.read_table(finished / "study/results/trials" / tried).to_pandas()
    assert held["id"].str.partition("/")[0].value_counts().to_dict() == {"mini_facts": 2, "mini_summary": 2}


def test_analyses_take_all_tasks_of_a_mix_for_its_own(finished: Path) -> None:
    found = pd.read_parquet(finished / "study/results/recommendations.parquet")
    assert {MIX, f"mini_inference after {MIX}", f"mini_summary after {MIX}", "mini_inference"} <= set(found["task"])
    roles = pd.read_csv(finished / "study/results/tables/datasets.csv").set_index("task")["role"]
    assert roles["mini_inference"] == f"tuned on; tuned on in {MIX}"
    assert roles["mini_summary"] == f"tuned on in halves; tuned on in {MIX}"
    used = ", ".join(pd.read_csv(finished / "study/results/tables/templates.csv")["tasks"])
    assert {"mini_facts", "mini_inference", "mini_summary"} == set(used.split(", "))


def test_other_shares_under_the_same_name_tune_it_again_alone(finished: Path, tmp_path: Path) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    assert running.planned(place) == {}
    changed = running.configured(place)
    changed["models"][0]["train"][1] = {"mix": {"mini_inference": 1, "mini_summary": 1}, "name": MIX}
    running.configure(place, changed)
    planned = running.planned(place)
    assert [planned.get(rule) for rule in ("prepare", "try_rate", "tune", "predict")] == [None, None, 1, 1]


@pytest.mark.parametrize(
    ("train", "line"),
    [
        (
            {"mix": {"mini_facts": 1}},
            "models/0/train/mix: {'mini_facts': 1} is not allowed; allowed: at least 2 entries",
        ),
        ({"mix": {"mini_facts": 1, "mnly": 1}}, "models/0/train: 'mnly' is not known; allowed: "),
        ({"mix": {"mini_facts": 1, "stsb": 0}}, "models/0/train/mix/stsb: 0 is not allowed; allowed: more than 0"),
        (
            [{"mix": {"rte": 1, "qqp": 1}, "name": "x"}, {"mix": {"rte": 1, "qqp": 2}, "name": "x"}],
            "models/0/train: two mixes have the name 'x'; give one of them another `name`",
        ),
        (
            {"mix": {"rte": 1, "qqp": 1}, "name": "mnli"},
            "models/0/train: the mix 'mnli' has the name of a task; choose another name",
        ),
        (
            {"mix": {"two_wiki_multihop_qa": 1, "mini_inference": 1, "two_wiki_multihop_qa_context": 3}},
            "models/0/train: the mix of two_wiki_multihop_qa, mini_inference, two_wiki_multihop_qa_context has a name of 70 "
            "characters; give it a shorter `name`",
        ),
    ],
)
def test_a_mix_that_does_not_fit_is_one_line(train: Any, line: str) -> None:
    from workflow.errors import MistakesError
    from workflow.planning import config_checks

    study = STUDY | {"models": [{"train": train, "recipes": ["full"]}], "suites": {"home": {"tests": ["mini_facts"]}}}
    study["families"] = {"mini": {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [0, 1]}}}
    with pytest.raises(MistakesError) as caught:
        config_checks.read({**study, "estimate": {}, "data_root": None})
    assert any(found.startswith(f"config.yaml: {line}") for found in str(caught.value).splitlines())
