"""Models missing from a study because fine-tuning, or every trial for it, diverged. Each left a record that names the reason.

A study stops at a missing model unless its config allows it. If it does, the tables are made without these models, the audit
lists each with its reason, and no analysis averages over the remaining seeds of a missing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow.models import checkpoints
from workflow.settings import Recipe, Study
from workflow.storage import tables
from workflow.study import grid
from workflow.training import learning_rate_search

Hole = dict[str, Any]

LINE_KEYS = [key for key in grid.MODEL_KEYS if key != "seed"]


def found(study: Study, models: pd.DataFrame, folder: Path = Path()) -> list[Hole]:
    """Return the missing models: MODEL_KEYS of each and the `reason`; none unless the study allows them.

    models: rows with MODEL_KEYS; folder: the study's. A record of another recipe or base than the study has now does not
    count: that model is still to be tuned. All models of a search without a learning rate left are missing.
    """
    if study["holes"] == "refuse":
        return []
    unmade = unchosen(study, folder)
    lost = [{**model, "reason": hole["reason"]} for hole in unmade for model in _of_search(models, hole)]
    others = without_searches(models[models["recipe"] != "none"], unmade)
    return [*lost, *_recorded(study, others, folder)]


def _of_search(models: pd.DataFrame, hole: Hole) -> list[dict[str, Any]]:
    """Return the MODEL_KEYS of the models whose learning rate a search was for."""
    keys = {key: value for key, value in hole.items() if key != "reason"}
    return tables.matching(models, keys)[grid.MODEL_KEYS].to_dict("records")


def without_searches(rows: pd.DataFrame, unmade: Iterable[Hole]) -> pd.DataFrame:
    """Return models or trials without those of the searches that found no learning rate (`unchosen`)."""
    for keys in (grid.CHOICE_KEYS, grid.OWN_CHOICE_KEYS):
        rows = without(rows, [hole for hole in unmade if set(hole) == {*keys, "reason"}], keys)
    return rows


def unchosen(study: Study, folder: Path = Path()) -> list[Hole]:
    """Return the searches without a learning rate left: `grid.choice_keys` of each and the `reason`; none unless allowed."""
    if study["holes"] == "refuse":
        return []
    lost = []
    for trials in _searches(study):
        recipe = trials["recipe"].iloc[0]
        keys, rates = grid.choice_keys(study, recipe), study["recipes"][recipe]["learning_rate"]
        diverged = trials[[_diverged(study, trial, folder) for trial in trials.to_dict("records")]]
        if set(diverged["rate"]) == set(range(len(rates))):
            reason = learning_rate_search.diverged(rates, diverged["step"])
            lost.append({**trials[keys].iloc[0].to_dict(), "reason": reason})
    return lost


def _searches(study: Study) -> Iterator[pd.DataFrame]:
    """Yield the trials of each search of a study."""
    for recipe, trials in grid.trials(study).groupby("recipe", sort=False):
        yield from (rows for _, rows in trials.groupby(grid.choice_keys(study, str(recipe)), sort=False))


def _diverged(study: Study, trial: Mapping[str, Any], folder: Path) -> bool:
    """Return whether a trial has a record of divergence for the study's current recipe and base."""
    facts = _facts(folder, "trials/" + grid.path(trial, grid.TRIAL_KEYS), trial)
    recipe = grid.recipe_for(study, trial["recipe"], trial["train"])
    return facts is not None and facts["recipe_settings"] == grid.at_rate(
        recipe, recipe["learning_rate"][trial["rate"]]
    )


def _recorded(study: Study, models: pd.DataFrame, folder: Path) -> Iterator[Hole]:
    """Yield models with a record of divergence for the study's current recipe and base."""
    for keys in models[grid.MODEL_KEYS].to_dict("records"):
        facts = _facts(folder, grid.path(keys, grid.MODEL_KEYS), keys)
        if facts and facts["recipe_settings"] == _recipe(study, keys, facts["recipe_settings"]["learning_rate"]):
            yield {**keys, "reason": facts["error"]}


def _facts(folder: Path, subfolder: str, keys: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metadata of a divergence record; None if there is none for the study's current base."""
    record = folder / "results/diverged" / subfolder / "part.parquet"
    manifest = folder / "resources/bases" / grid.path(keys, grid.BASE_KEYS) / "base.json"
    if not record.is_file() or not manifest.is_file():
        return None
    facts = tables.recorded(record)
    return facts if checkpoints.identity(checkpoints.read_base(manifest)) == facts["base"] else None


def _recipe(study: Study, keys: Mapping[str, Any], learning_rate: float) -> Recipe:
    """Return the recipe of a model, at this learning rate if the recipe lists several."""
    recipe = grid.recipe_for(study, keys["recipe"], keys["train"])
    listed = isinstance(recipe["learning_rate"], list) and learning_rate in recipe["learning_rate"]
    return grid.at_rate(recipe, learning_rate) if listed else recipe


def without(rows: pd.DataFrame, holes: Iterable[Hole], keys: list[str] = grid.MODEL_KEYS) -> pd.DataFrame:
    """Return models or cells without the missing ones; with LINE_KEYS, also without other seeds of a missing one."""
    missing = {tuple(hole[key] for key in keys) for hole in holes}
    present = [row not in missing for row in rows[keys].itertuples(index=False, name=None)]
    return rows[np.array(present, dtype=bool)].reset_index(drop=True)
