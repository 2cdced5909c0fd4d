"""What forecasting from indicators starts from and ends in: the block of the config and the gathered tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.forecasting import cohorts, published_numbers
from workflow.forecasting.cohorts import Cohort
from workflow.storage import tables


@dataclass(frozen=True)
class Forecasting:
    """One cohort of a study and how well its targets are forecast.

    name, block: of the cohort (`settings.table`); forecasts, rankings, importance: its rows of the gathered tables;
    published: what was printed elsewhere, in the columns of `printed`, None where the config names no such file.
    """

    name: str
    block: Mapping[str, Any]
    cohort: Cohort
    forecasts: pd.DataFrame
    rankings: pd.DataFrame
    importance: pd.DataFrame
    published: pd.DataFrame | None

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """Every printed number beside this study's (`published_numbers.compare`); empty where none are named."""
        if self.published is None:
            return published_numbers.EMPTY
        return published_numbers.compare(self.published, self.forecasts, self.rankings, self.importance)


def load(
    blocks: Mapping[str, Mapping[str, Any]], forecasts: Path, rankings: Path, importance: Path
) -> list[Forecasting]:
    """The forecasting of each cohort from its block and the files of the gathered tables."""
    gathered = [tables.read(path) for path in (forecasts, rankings, importance)]
    return [_loaded(name, block, gathered) for name, block in blocks.items()]


def _loaded(name: str, block: Mapping[str, Any], gathered: Sequence[pd.DataFrame]) -> Forecasting:
    published = published_numbers.read(Path(block["printed"])) if "printed" in block else None
    own = [rows[rows["cohort"] == name].drop(columns="cohort") for rows in gathered]
    return Forecasting(name, block, cohorts.read(block), *own, published)
