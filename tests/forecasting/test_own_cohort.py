"""A cohort of the study's own bases: plain means over data sets, never over fewer; runs; config fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from workflow import registry
from workflow.audit import checks, inputs
from workflow.errors import StudyError
from workflow.forecasting import cohorts, forecast_accuracy, leaderboards, own_cohort, pairs, results, settings, splits
from workflow.planning import config_checks
from workflow.statistics import Resampling
from workflow.storage import tables

PRETRAINING = {"corpus": "miniworld", "save": [0, 10], "steps": 10, "batch": 4, "sequence": 64}
TARGETS = {
    "both": {"tests": ["mini_facts", "mini_inference"], "recipe": "full", "suite": "mini"},
    "away": {
        "tests": {"mini_facts": ["mini_facts_ood"]},
        "recipe": "full",
        "suite": "mini",
        "metric": "accuracy_per_token",
    },
}


def config(count: int = 2, **changes: Any) -> dict[str, Any]:
    """Families a, b, … with steps 0 and 10, of growing learning rate."""
    block = {"fields": ["step", "tokens", "learning_rate"], "indicators": ["ppl_clm"], "targets": TARGETS}
    return {
        "families": {
            name: {"source": "trained", "pretraining": PRETRAINING | {"learning_rate": 0.001 * (n + 1)}}
            for n, name in enumerate("abcdef"[:count])
        },
        "recipes": {"full": {"learning_rate": 1.0e-3}},
        "models": [{"train": ["mini_facts", "mini_inference"], "recipes": ["full"], "seeds": [0, 1]}],
        "suites": {"mini": {"tests": ["mini_facts", "mini_facts_ood", "mini_inference"]}},
        "indicators": {"ppl_clm": {"measure": "clm", "corpus": "miniworld"}},
        "cohorts": {"own": block | changes},
    }


def scored(family: str, step: int, train: str, test: str, value: float, seed: int = 0, **changes: Any) -> dict:
    keys = {"format": "default", "recipe": "full", "suite": "mini", "test_format": "default", "shots": 0}
    row = {"family": family, "step": step, "train": train, "test": test, "seed": seed, "metric": "accuracy"}
    return row | keys | {"value": value} | changes


SCORES = pd.DataFrame(
    [
        scored("a", 0, "mini_facts", "mini_facts", 0.2, seed=0),
        scored("a", 0, "mini_facts", "mini_facts", 0.4, seed=1),
        scored("a", 0, "mini_inference", "mini_inference", 0.9),
        scored("a", 10, "mini_facts", "mini_facts", 0.8),  # its inference is missing
        scored("b", 0, "mini_facts", "mini_facts", 0.5),
        scored("b", 0, "mini_inference", "mini_inference", 0.7),
        scored("b", 0, "mini_inference", "mini_inference", 0.1, test_format="io"),
        scored("b", 0, "mini_inference", "mini_inference", 0.1, shots=4),
        scored("b", 0, "mini_inference", "mini_facts", 0.1),
        scored("b", 0, "none", "mini_facts", 0.1, recipe="none"),
        scored("b", 10, "mini_facts", "mini_facts_ood", 0.1),
        scored("b", 10, "mini_facts", "mini_facts_ood", 0.6, metric="accuracy_per_token"),
    ]
)
INDICATORS = pd.DataFrame(
    [("a", 0, "ppl_clm", 0.1), ("a", 10, "ppl_clm", 0.3), ("b", 0, "ppl_clm", 0.2), ("b", 0, "other", 5.0)],
    columns=["family", "step", "indicator", "value"],
)


def made(study: dict[str, Any]) -> pd.DataFrame:
    block = config_checks.read(study)["cohorts"]["own"]
    return own_cohort.table(block, own_cohort.bases(config_checks.read(study), block), SCORES, INDICATORS)


def test_a_target_is_a_plain_mean_and_none_where_a_data_set_is_missing() -> None:
    table = made(config()).set_index("base")
    assert list(table.index) == ["a@0", "a@10", "b@0", "b@10"]
    assert table.loc["a@0", "both"] == pytest.approx(((0.2 + 0.4) / 2 + 0.9) / 2)
    assert table.loc["b@0", "both"] == pytest.approx(0.6)
    assert table["both"].isna().tolist() == [False, True, False, True]
    assert table["away"].dropna().to_dict() == {"b@10": 0.6}
    assert table["ppl_clm"].isna().tolist() == [False, False, False, True]


def test_a_base_whose_tuning_diverged_with_one_seed_lacks_the_target() -> None:
    """The seed that is left would flatter it."""
    study = config_checks.read(config())
    block = study["cohorts"]["own"]
    hole = {"family": "b", "step": 0, "train": "mini_facts", "format": "default", "recipe": "full", "seed": 1}
    table = own_cohort.table(block, own_cohort.bases(study, block), SCORES, INDICATORS, [hole | {"reason": "diverged"}])
    assert table.set_index("base")["both"].isna().to_dict() == {"a@0": False, "a@10": True, "b@0": True, "b@10": True}


def test_fields_come_from_the_config_and_runs_are_families() -> None:
    table = made(config())
    assert table["tokens"].tolist() == [0, 2560, 0, 2560]
    assert table["learning_rate"].tolist() == [0.001, 0.001, 0.002, 0.002]
    assert table["run"].tolist() == ["a", "a", "b", "b"]
    assert made(config(count=1))["run"].tolist() == ["a@0", "a@10"]


def test_a_base_that_lacks_a_number_is_left_out(tmp_path: Path) -> None:
    study = config(targets={"both": TARGETS["both"]})
    path = tmp_path / "own.csv"
    made(study).to_csv(path, index=False)
    block = settings.table("own", config_checks.read(study)["cohorts"]["own"])
    assert block["path"] == "results/cohorts/own.csv"
    found = cohorts.read(block | {"path": str(path)})
    assert found.ids == ["a@0", "b@0"] and found.values(["both"])[:, 0] == pytest.approx([0.6, 0.6])


def test_few_bases_are_told_apart_by_what_needs_no_fitting_and_without_intervals(tmp_path: Path) -> None:
    """Six bases of one run: 15 pairs; nothing can be learnt from three or four of them."""
    rows = [f"{n},{n % 2},{n},{(n * 7) % 6}" for n in range(6)]
    path = tmp_path / "six.csv"
    path.write_text("\n".join(["base,half,p,s", *rows]))
    block = {"path": str(path), "key": "base", "fields": ["half"], "indicators": ["p"], "targets": ["s"]}
    settled = block | {"combinations": {}, "contrasts": []}
    found = cohorts.read(block)
    tables = {
        s: forecast_accuracy.forecast(found, settled, s, Resampling(200, 0.95, 0), print)
        for s in splits.names(["half"])
    }
    assert tables["random"]["forecasts"] == [] and tables["leave_out_half"]["forecasts"] == []
    rows = pd.DataFrame(tables["every_pair"]["forecasts"]).query("subset == 'all' and ties == 'half'")
    assert set(rows["forecaster"]) == {"chance", "p", "half"}
    own = rows[rows["kind"] == "indicator"].iloc[0]
    assert own["n_pairs"] == 15 and own["n_bases"] == 6 and pd.isna(own["low"]) and pd.isna(own["high"])
    assert own["accuracy"] == pytest.approx(sum((b * 7) % 6 > (a * 7) % 6 for b in range(6) for a in range(b)) / 15)


@pytest.mark.parametrize("bases", [0, 1, 2, 3, 6])
def test_any_number_of_bases_makes_tables_and_no_check_fails(bases: int, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    lines = [f"a@{n},a@{n},{n},{0.1 * n},{n * 7 % 5},{n * n % 7}" for n in range(bases)]
    path.write_text("\n".join(["base,run,step,p,q,s", *lines, "a@99,a@99,99,,,"]))
    parts = {"fields": ["step"], "indicators": ["p", "q"], "targets": ["s"], "contrasts": [["step"]]}
    more = {
        "path": str(path),
        "key": "base",
        "run": "run",
        "assembled": True,
        "combinations": {"both": {"p": 1, "q": 1}},
    }
    block = {**parts, **more, "test_rows": {}, "full_score": 1.0}
    found = cohorts.read(block)
    assert len(found.rows) == bases and len(pairs.rows(found)) == bases * (bases - 1) // 2
    made = forecast_accuracy.forecast(found, block, "every_pair", Resampling(200, 0.95, 0), lambda done, total: None)
    schemas = {"forecasts": tables.FORECASTS, "rankings": tables.RANKINGS, "importance": tables.IMPORTANCE}
    frames = {name: tables.frame(pa.Table.from_pylist(list(made[name]), schema)) for name, schema in schemas.items()}
    own = [frame.assign(split="every_pair") for frame in frames.values()]
    whole = results.Forecasting("own", block, found, *own, published=None)
    for name, make in leaderboards.TABLES.items():
        assert bases > 1 or make(whole).empty, name
        leaderboards.write(make(whole), tmp_path / "table.csv", tmp_path / "table.md")
    material = inputs.AuditInputs(pd.DataFrame(), pd.DataFrame(), [], [], [], {}, [whole])
    for name in registry.modules(checks):
        check = registry.module(checks, name)
        found = list(inputs.findings_of(material, check)) if hasattr(check, "check_cohort") else []
        assert bases > 1 or not found


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"families": ["z"]}, "cohorts/own/families: 'z' is not known; allowed: a, b"),
        (
            {"fields": ["mood"]},
            "cohorts: field 'mood' is not known; allowed: batch, clip, context, corpus",
        ),
        (
            {"targets": {"t": TARGETS["both"] | {"recipe": "lora"}}},
            "cohorts/own/targets/t/recipe: 'lora' is not known; allowed: full",
        ),
        (
            {"targets": {"t": TARGETS["both"] | {"tests": ["mini_summary"]}}},
            "cohorts/own/targets/t/tests: 'mini_summary' is not known; allowed: mini_facts, mini_inference",
        ),
    ],
)
def test_a_bad_cohort_is_refused_in_lines_that_name_it(changes: dict, line: str) -> None:
    with pytest.raises(StudyError) as caught:
        config_checks.read(config(**changes))
    first, *others = str(caught.value).splitlines()
    assert first.startswith(f"config.yaml: {line}")
    assert all(other.startswith("config.yaml: cohorts/own/targets/t/tests/mini_summary: ") for other in others)
