"""Results of forecasting from indicators: the config block of each cohort with the gathered tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from workflow.forecasting import cohorts, published_numbers
from workflow.forecasting.cohorts import Cohort
from workflow.settings import CohortTable
from workflow.storage import tables


@dataclass(frozen=True)
class Forecasting:
    """One cohort of a study and its forecasting results.

    name, block: of the cohort (`settings.table`); forecasts, rankings, importance: its rows of the gathered tables;
    published: published numbers (`published_numbers.COLUMNS`), None if the config names no such file.
    """

    name: str
    block: CohortTable
    cohort: Cohort
    forecasts: pd.DataFrame
    rankings: pd.DataFrame
    importance: pd.DataFrame
    published: pd.DataFrame | None

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """Published numbers and this study's (`published_numbers.compare`); empty if there are none."""
        if self.published is None:
            return published_numbers.EMPTY
        return published_numbers.compare(self.published, self.forecasts, self.rankings, self.importance)


def load(blocks: Mapping[str, CohortTable], forecasts: Path, rankings: Path, importance: Path) -> list[Forecasting]:
    """Return the results of each cohort from its block and the files of the gathered tables."""
    gathered = [tables.read(path) for path in (forecasts, rankings, importance)]
    return [_loaded(name, block, gathered) for name, block in blocks.items()]


def _loaded(name: str, block: CohortTable, gathered: Sequence[pd.DataFrame]) -> Forecasting:
    published = published_numbers.read(Path(block["printed"])) if "printed" in block else None
    forecasts, rankings, importance = (rows[rows["cohort"] == name].drop(columns="cohort") for rows in gathered)
    return Forecasting(name, block, cohorts.read(block), forecasts, rankings, importance, published)
