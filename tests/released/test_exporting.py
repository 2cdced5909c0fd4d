"""Scores that leave a study come back the same: files of lm-evaluation-harness and records of Every Eval Ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workflow.released import exporting, runs, score_rows
from workflow.study import grid

TIME = "2026-11-27T12:00:00"
SHARED = {"test_format": "default", "primary": True, "part_of": None, "tokens": None}


def row(recipe: str, seed: int, test: str, metric: str, value: float, **other: Any) -> dict[str, Any]:
    """One score of a study."""
    train = "none" if recipe == "none" else "stars"
    keys = {"family": "tiny", "step": 20, "train": train, "format": "none" if recipe == "none" else "default"}
    numbers = {"shots": 0, "error": 0.1, "low": 0.0, "high": 1.0, "n": 8, "better": "higher"}
    return (
        keys
        | {"recipe": recipe, "seed": seed, "suite": "plain", "test": test, "metric": metric, "value": value}
        | SHARED
        | numbers
        | other
    )


SCORES = pd.DataFrame(
    [
        row("none", 0, "stars", "accuracy", 0.625),
        row("none", 0, "stars", "nll", 3.25, better="lower", error=None, low=None, high=None),
        row("none", 0, "stars", "accuracy", 0.75, shots=2),
        row("full", 0, "stars", "accuracy", 1 / 3, error=0.1234567890123),
        row("full", 3, "stars", "accuracy", 0.875),
        row("full", 3, "moons", "rouge_l", 0.1),
        row("full", 3, "moons", "length", None, error=None, low=None, high=None, better=None),
    ]
)
MODELS = [
    {"model": "tiny", "family": "tiny"},
    {
        "model": "tiny+stars+default+full+seed{seed}",
        "family": "tiny",
        "train": "stars",
        "recipe": "full",
        "format": "default",
    },
]
KEYS = [*grid.MODEL_KEYS, "test", "shots", "metric"]


def exported(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All JSON files of an export, by kind."""
    count = exporting.write(SCORES, folder, TIME)
    found = {
        kind: [json.loads(path.read_text()) for path in sorted((folder / kind).rglob("*.json"))] for kind in FORMATS
    }
    assert count == sum(map(len, found.values())) == 8
    return found


FORMATS = {"lm_eval": "lm_eval", "every_eval_ever": "every_eval_ever"}


@pytest.mark.parametrize("kind", FORMATS)
def test_scores_come_back_the_same(tmp_path: Path, kind: str) -> None:
    exported(tmp_path)
    block: Any = {"reader": kind, "path": str(tmp_path / kind), "models": MODELS, "rename": {}}
    found = pd.DataFrame(score_rows.import_results(block, runs.reader(block), "plain").scores)
    numbers = ["value", "error", "n"]
    back = found[found["metric"].isin(set(SCORES["metric"]))].set_index(KEYS)[numbers].astype(float).sort_index()
    sent = SCORES[SCORES["value"].notna()].set_index(KEYS)[numbers].astype(float).sort_index()
    pd.testing.assert_frame_equal(back, sent, check_exact=True, check_names=False)


ROWS = [  # of each model and way, in several orders; their means are the scores
    ("none", 0, 0, ["test/a", "test/b", "test/10", "test/9"], [1.0, 1.0, 0.5, 0.0]),
    ("none", 0, 2, ["test/a", "test/b", "test/10", "test/9"], [1.0, 1.0, 1.0, 0.0]),
    ("full", 0, 0, ["test/b", "test/9", "test/10", "test/a"], [1 / 3] * 4),
    ("full", 3, 0, ["test/9", "test/b", "test/a", "test/10"], [0.5, 1.0, 1.0, 1.0]),
]


def test_single_rows_come_back_the_same_and_are_paired_across_models(tmp_path: Path) -> None:
    exported(tmp_path)
    sent = [
        (row(recipe, seed, "stars", "accuracy", 0.0, shots=n), ids, values) for recipe, seed, n, ids, values in ROWS
    ]
    assert exporting.write_samples(sent, tmp_path, TIME) == 4
    block: Any = {"reader": "lm_eval", "path": str(tmp_path / "lm_eval"), "models": MODELS, "rename": {}}
    back = pd.DataFrame(score_rows.import_results(block, runs.reader(block), "plain").items)
    table = back[back["metric"] == "accuracy"].pivot(index="id", columns=["recipe", "seed", "shots"], values="value")
    assert table.to_dict("list") == {  # in the order of the ids: 10, 9, a, b
        ("none", 0, 0): [0.5, 0.0, 1.0, 1.0],
        ("none", 0, 2): [1.0, 0.0, 1.0, 1.0],
        ("full", 0, 0): [1 / 3] * 4,
        ("full", 3, 0): [1.0, 0.5, 1.0, 1.0],
    }


def test_a_file_is_as_the_harness_writes_it(tmp_path: Path) -> None:
    base = next(
        one
        for one in exported(tmp_path)["lm_eval"]
        if one["model_name"] == "tiny" and one["config"]["num_fewshot"] == 0
    )
    assert base["results"] == {
        "stars": {
            "alias": "stars", "accuracy,none": 0.625, "accuracy_stderr,none": 0.1, "nll,none": 3.25, "nll_stderr,none": "N/A",
        }
    }  # fmt: skip
    assert base["config"]["model_args"] == {"pretrained": "tiny", "revision": "step20"}
    assert (base["n-shot"], base["n-samples"]) == ({"stars": 0}, {"stars": {"original": 8, "effective": 8}})
    assert base["higher_is_better"] == {"stars": {"accuracy": True, "nll": False}}


REQUIRED = {
    "": {
        "schema_version",
        "evaluation_id",
        "retrieved_timestamp",
        "source_metadata",
        "model_info",
        "eval_library",
        "evaluation_results",
    },
    "source_metadata": {"source_type", "source_organization_name", "evaluator_relationship"},
    "model_info": {"name", "id"},
    "eval_library": {"name", "version"},
}
ALLOWED = REQUIRED[""] | {"evaluation_timestamp", "dedupe_identity", "detailed_evaluation_results"}


def test_a_record_has_what_the_schema_of_every_eval_ever_asks_for(tmp_path: Path) -> None:
    """Keys that version 0.2.1 of the schema requires or allows, its lists of words, and texts where it wants texts."""
    for record in exported(tmp_path)["every_eval_ever"]:
        assert REQUIRED[""] <= set(record) <= ALLOWED
        for part in ("source_metadata", "model_info", "eval_library"):
            assert REQUIRED[part] <= set(record[part])
        assert record["source_metadata"]["source_type"] in ("documentation", "evaluation_run")
        assert record["source_metadata"]["evaluator_relationship"] in (
            "first_party",
            "third_party",
            "collaborative",
            "other",
        )
        details = [record["model_info"]["additional_details"]]
        for result in record["evaluation_results"]:
            assert {"evaluation_name", "source_data", "metric_config", "score_details"} <= set(result)
            assert result["source_data"]["source_type"] == "other" and result["source_data"]["dataset_name"]
            metric = result["metric_config"]
            assert isinstance(metric["lower_is_better"], bool)
            assert metric.get("score_type") != "continuous" or {"min_score", "max_score"} <= set(metric)
            assert isinstance(result["score_details"]["score"], float)
            unsure = result["score_details"].get("uncertainty", {})
            assert isinstance(unsure.get("num_samples", 1), int) and set(unsure.get("standard_error", {"value"})) == {
                "value"
            }
            details.append(result["generation_config"]["additional_details"])
        assert all(isinstance(text, str) for own in details for text in own.values())
