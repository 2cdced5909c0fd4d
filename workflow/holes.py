"""Models that a study lacks because their tuning diverged, known by the record that each of them left.

A study refuses to be incomplete unless its config allows it. Then its tables are made without these models, the audit lists
each of them with its reason, and no analysis averages over the seeds that are left of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow import grid, sources, tables

Hole = dict[str, Any]

LINE_KEYS = [key for key in grid.MODEL_KEYS if key != "seed"]


def found(study: Mapping[str, Any], models: pd.DataFrame, folder: Path = Path()) -> list[Hole]:
    """The holes that the study allows: MODEL_KEYS of each model and the `reason` why it is missing; none unless allowed.

    models: rows with MODEL_KEYS; folder: the study's. A record of another recipe, or of another base, than there are now
    does not count: that model is yet to be tuned.
    """
    if study["holes"] == "refuse":
        return []
    return list(_recorded(study, models[models["recipe"] != "none"], folder))


def _recorded(study: Mapping[str, Any], models: pd.DataFrame, folder: Path) -> Iterator[Hole]:
    """Models with a record of their divergence that is about what the study has now."""
    for keys in models[grid.MODEL_KEYS].to_dict("records"):
        record = folder / "results/diverged" / grid.path(keys, grid.MODEL_KEYS) / "part.parquet"
        if not record.is_file():
            continue
        facts = tables.recorded(record)
        manifest = folder / "resources/bases" / grid.path(keys, grid.BASE_KEYS) / "base.json"
        same_base = manifest.is_file() and sources.identity(sources.read_base(manifest)) == facts["base"]
        if same_base and facts["recipe_settings"] == _recipe(study, keys, facts["recipe_settings"]["learning_rate"]):
            yield {**keys, "reason": facts["error"]}


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
