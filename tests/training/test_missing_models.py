"""A tuning that diverges: the rest of the study is made, and what is missing is listed where it is allowed to be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running
from audit.test_checks import found as findings
from audit.test_checks import material, score
from running import SMOKE

from workflow.models import checkpoints
from workflow.storage import tables
from workflow.study import config as configs
from workflow.study import grid
from workflow.training import missing_models

BASE = {"family": "tiny", "step": 20, "path": "somewhere", "files": {"model.safetensors": {"bytes": 1, "sha256": "a"}}}
REASON = "tuning stopped at step 3: the loss is nan, the gradient norm nan"
LOST = {"family": "tiny", "step": 20, "train": "mini_inference", "format": "default", "recipe": "full", "seed": 1}


def study_of(**changes: Any) -> dict[str, Any]:
    """The smoke study as it is validated, with another recipe `full` and its holes allowed."""
    recipes = SMOKE["recipes"] | {"full": SMOKE["recipes"]["full"] | changes}
    return configs.validated(SMOKE | {"recipes": recipes, "holes": "allow"})


def record(folder: Path, study: dict[str, Any], **settings: Any) -> None:
    """What a diverged tuning of LOST leaves, and the manifest of its base."""
    manifest = folder / "resources/bases/family=tiny/step=20/base.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(BASE))
    path = folder / "results/diverged" / grid.path(LOST, grid.MODEL_KEYS) / "part.parquet"
    facts = {
        "recipe_settings": study["recipes"]["full"] | settings,
        "base": checkpoints.identity(BASE),
        "error": REASON,
    }
    tables.write([{"update": 3, "loss": None}], tables.HISTORY, path, **facts)


def test_a_record_is_a_hole_where_holes_are_allowed(tmp_path: Path) -> None:
    study = study_of()
    record(tmp_path, study)
    models = grid.models(study)
    assert missing_models.found(study, models, tmp_path) == [{**LOST, "reason": REASON}]
    manifest = tmp_path / "resources/bases/family=tiny/step=20/base.json"
    manifest.write_text(json.dumps(BASE | {"path": "moved/somewhere"}))
    assert missing_models.found(study, models, tmp_path) == [{**LOST, "reason": REASON}], (
        "the same base in another place"
    )
    assert missing_models.found(configs.validated(SMOKE), models, tmp_path) == []


def test_a_record_of_another_recipe_or_base_is_none(tmp_path: Path) -> None:
    study = study_of()
    record(tmp_path, study)
    models = grid.models(study)
    assert missing_models.found(study_of(learning_rate=1.0e-5), models, tmp_path) == []
    assert missing_models.found(study_of(version=2), models, tmp_path) == []
    manifest = tmp_path / "resources/bases/family=tiny/step=20/base.json"
    manifest.write_text(json.dumps(BASE | {"files": {}}))
    assert missing_models.found(study, models, tmp_path) == []
    manifest.unlink()
    assert missing_models.found(study, models, tmp_path) == []


def test_a_record_of_a_chosen_rate_is_of_the_recipe_that_lists_it(tmp_path: Path) -> None:
    searched = {"learning_rate": [1.0e-3, 1.0e-4], "search": {"validation": 4, "steps": [0]}}
    study = study_of(**searched)
    chosen = grid.at_rate(study["recipes"]["full"], 1.0e-4)
    record(tmp_path, study, **chosen)
    assert missing_models.found(study, grid.models(study), tmp_path) == [{**LOST, "reason": REASON}]
    fewer = study_of(**searched | {"learning_rate": [1.0e-3, 1.0e-5]})
    assert missing_models.found(fewer, grid.models(fewer), tmp_path) == []


def test_what_is_left_without_a_hole_and_without_its_other_seeds() -> None:
    study = study_of()
    cells, lost = grid.cells(study), [{**LOST, "reason": REASON}]
    left, whole = missing_models.without(cells, lost), missing_models.without(cells, lost, missing_models.LINE_KEYS)
    gone = pd.concat([cells, left]).drop_duplicates(keep=False)
    # The model was put to two suites; its other seed to the same two.
    assert sorted(gone["suite"]) == ["formats", "written"] and set(gone["seed"]) == {1}
    assert len(whole) == len(cells) - 4
    assert not ((whole["recipe"] == "full") & (whole["train"] == "mini_inference")).any()
    assert missing_models.without(cells, []).equals(cells)


def test_the_audit_lists_each_hole_and_its_other_seeds() -> None:
    rows = [score(0.5), score(0.6, train="mnli", seed=0), score(0.6, train="paws", seed=0)]
    keys = {key: rows[1][key] for key in grid.MODEL_KEYS}
    study = material(rows)
    lost = [{**keys, "seed": 1, "reason": REASON}, {**keys, "train": "xsum", "reason": REASON}]
    first, second = (row for row in findings("missing_cells", replace(study, holes=lost)))
    assert first["severity"] == second["severity"] == "warning"
    assert {key: first[key] for key in grid.MODEL_KEYS} == {**keys, "seed": 1}
    assert first["evidence"] == (
        f"hole: no score of this model, since its tuning diverged: {REASON}; its other seeds (0) are left out of analyses"
    )
    assert second["evidence"] == f"hole: no score of this model, since its tuning diverged: {REASON}"


WILD = {"train": ["mini_facts"], "recipes": ["wild"], "steps": [20]}
MODEL = "family=tiny/step=20/train=mini_facts/format=default/recipe=wild/seed=0"


@pytest.mark.faults
def test_the_rest_is_made_and_the_hole_is_listed(smoke: Path, tmp_path: Path) -> None:
    place = shutil.copytree(smoke, tmp_path / "place")
    study = running.configured(place)
    study["recipes"]["wild"] = SMOKE["recipes"]["full"] | {"learning_rate": 1.0e30, "warmup": 0.0}
    study["models"] += [WILD]
    study["models"][0]["seeds"] = [0, 1, 2]
    running.configure(place, study)
    results = place / "study/results"

    ended = running.run(place, "--keep-going")
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("tune family=")]
    assert "recipe=wild" in line and ": tuning stopped at step " in line
    new = "family=tiny/step=20/train=mini_inference/format=default/recipe=full/seed=2"
    assert len(list((results / f"scores/{new}").rglob("part.parquet"))) == 2, "the other new model is scored"
    assert not (results / f"histories/{MODEL}").exists()
    assert not (place / f"study/resources/models/{MODEL}").exists()
    before = tables.read(results / "scores.parquet")
    assert not ((before["recipe"] == "wild") | (before["seed"] == 2)).any(), "no table over fewer cells"

    ended = running.run(place, "--config", "holes=allow")
    assert ended.returncode == 0, ended.stderr
    scores, audit = tables.read(results / "scores.parquet"), tables.read(results / "audit.parquet")
    assert (scores["seed"] == 2).any() and not (scores["recipe"] == "wild").any()
    (hole,) = audit[audit["evidence"].str.startswith("hole: ")].to_dict("records")
    assert "/".join(f"{key}={hole[key]}" for key in grid.MODEL_KEYS) == MODEL
    assert "tuning stopped at step " in hole["evidence"]
    assert running.planned(place, "--config", "holes=allow") == {}

    # A recipe that does not diverge is tuned, whether holes are allowed or not.
    study["recipes"]["wild"]["learning_rate"] = 1.0e-3
    running.configure(place, study)
    jobs = running.planned(place, "--config", "holes=allow")
    assert (jobs["tune"], jobs["predict"], jobs["score"]) == (1, 2, 2)


def test_a_study_of_released_scores_alone_has_no_cells_and_no_holes():
    """A table without rows keeps its columns."""
    rows = pd.DataFrame(columns=grid.PART_KEYS)
    assert list(missing_models.without(rows, []).columns) == grid.PART_KEYS
