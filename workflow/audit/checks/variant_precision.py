"""Columns of a table of variants that are given more precisely for some configs than for others: another evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import finding, listed
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.results import Forecasting

LIMIT = (
    1e-6  # chance that the finest numbers avoid some levels of a field; small, since levels are chosen by what is seen
)


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A warning for each column and field whose levels differ in the number of decimals."""
    found = forecasting.cohort
    for name in (*found.indicators, *found.targets):
        decimals = found.written[name].map(_decimals).to_numpy()
        for field in found.fields:
            yield from _levels(found, name, field, decimals == decimals.max(), int(decimals.max()))


def _decimals(text: str) -> int:
    """Decimals that a number needs; zeros at its end are padding."""
    return len(text.partition(".")[2].rstrip("0"))


def _levels(found: Cohort, name: str, field: str, fine: np.ndarray, decimals: int) -> Iterator[dict[str, Any]]:
    """The finding for a field some of whose levels have no number with all decimals."""
    column = found.rows[field]
    coarse = ~column.isin(column[fine].unique()).to_numpy()
    rows, without, most = len(fine), int(coarse.sum()), int(fine.sum())
    if not without:
        return
    chance = math.comb(rows - without, most) / math.comb(rows, most)
    if chance < LIMIT:
        values = found.values([name])[:, 0]
        levels, others = _named(column[~coarse]), _named(column[coarse])
        medians = f"{np.median(values[~coarse]):g} and {np.median(values[coarse]):g}"
        evidence = (
            f"{name} has {decimals} decimals in {most} of {rows - without} rows with {field} {levels}, and in none of "
            f"{without} with {others}; its median is {medians}: the two groups may have been evaluated differently"
        )
        yield finding("warning", found.rows, evidence, value=float(chance), limit=LIMIT, n=rows)


def _named(levels: pd.Series) -> str:
    return listed(f"{level:g}" if isinstance(level, float) else level for level in sorted(levels.unique()))
