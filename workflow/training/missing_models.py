"""Models that a study lacks because their tuning, or every trial for it, diverged, known by the record that each left.

A study refuses to be incomplete unless its config allows it. Then its tables are made without these models, the audit lists
each of them with its reason, and no analysis averages over the seeds that are left of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow.models import checkpoints
from workflow.storage import tables
from workflow.study import grid
from workflow.training import learning_rate_search

Hole = dict[str, Any]

LINE_KEYS = [key for key in grid.MODEL_KEYS if key != "seed"]


def found(study: Mapping[str, Any], models: pd.DataFrame, folder: Path = Path()) -> list[Hole]:
    """The holes that the study allows: MODEL_KEYS of each model and the `reason` why it is missing; none unless allowed.

    models: rows with MODEL_KEYS; folder: the study's. A record of another recipe, or of another base, than there are now
    does not count: that model is yet to be tuned. All models of a search that leaves no learning rate are holes.
    """
    if study["holes"] == "refuse":
        return []
    unmade = unchosen(study, folder)
    without_rate = models.merge(pd.DataFrame(unmade, columns=[*grid.CHOICE_KEYS, "reason"]), on=grid.CHOICE_KEYS)
    others = without(models[models["recipe"] != "none"], unmade, grid.CHOICE_KEYS)
    return [*without_rate[[*grid.MODEL_KEYS, "reason"]].to_dict("records"), *_recorded(study, others, folder)]


def unchosen(study: Mapping[str, Any], folder: Path = Path()) -> list[Hole]:
    """Searches that leave no learning rate, as holes: CHOICE_KEYS of each and the `reason`; none unless they are allowed."""
    if study["holes"] == "refuse":
        return []
    lost = []
    for keys, trials in grid.trials(study).groupby(grid.CHOICE_KEYS, sort=False):
        rates = study["recipes"][trials["recipe"].iloc[0]]["learning_rate"]
        diverged = trials[[_diverged(study, trial, folder) for trial in trials.to_dict("records")]]
        if set(diverged["rate"]) == set(range(len(rates))):
            reason = learning_rate_search.diverged(rates, diverged["step"])
            lost.append(dict(zip(grid.CHOICE_KEYS, keys, strict=True)) | {"reason": reason})
    return lost


def _diverged(study: Mapping[str, Any], trial: Mapping[str, Any], folder: Path) -> bool:
    """Whether a trial has a record of its divergence that is about what the study has now."""
    facts = _facts(folder, "trials/" + grid.path(trial, grid.TRIAL_KEYS), trial)
    recipe = study["recipes"][trial["recipe"]]
    return bool(facts) and facts["recipe_settings"] == grid.at_rate(recipe, recipe["learning_rate"][trial["rate"]])


def _recorded(study: Mapping[str, Any], models: pd.DataFrame, folder: Path) -> Iterator[Hole]:
    """Models with a record of their divergence that is about what the study has now."""
    for keys in models[grid.MODEL_KEYS].to_dict("records"):
        facts = _facts(folder, grid.path(keys, grid.MODEL_KEYS), keys)
        if facts and facts["recipe_settings"] == _recipe(study, keys, facts["recipe_settings"]["learning_rate"]):
            yield {**keys, "reason": facts["error"]}


def _facts(folder: Path, place: str, keys: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a record of a divergence says of its tuning; None where there is none about the base that the study has now."""
    record = folder / "results/diverged" / place / "part.parquet"
    manifest = folder / "resources/bases" / grid.path(keys, grid.BASE_KEYS) / "base.json"
    if not record.is_file() or not manifest.is_file():
        return None
    facts = tables.recorded(record)
    return facts if checkpoints.identity(checkpoints.read_base(manifest)) == facts["base"] else None


def _recipe(study: Mapping[str, Any], keys: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """The recipe that the study tunes a model by; at this rate, where it chooses among several."""
    recipe = grid.recipe_for(study, keys["recipe"], keys["train"])
    listed = isinstance(recipe["learning_rate"], list) and learning_rate in recipe["learning_rate"]
    return grid.at_rate(recipe, learning_rate) if listed else recipe


def without(rows: pd.DataFrame, holes: Iterable[Hole], keys: list[str] = grid.MODEL_KEYS) -> pd.DataFrame:
    """Models or cells but those of the holes; with LINE_KEYS, also those of other seeds of a hole."""
    missing = {tuple(hole[key] for key in keys) for hole in holes}
    there = [row not in missing for row in rows[keys].itertuples(index=False, name=None)]
    return rows[np.array(there, dtype=bool)].reset_index(drop=True)
