"""Columns of a table of variants with more decimals for some configs than for others: possibly another evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import finding, listed
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.results import Forecasting

# Probability that the values with most decimals avoid some levels of a field; small, since the levels are chosen afterwards.
LIMIT = 1e-6


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A warning for each column and field whose levels differ in the number of decimals."""
    cohort = forecasting.cohort
    for name in (*cohort.indicators, *cohort.targets):
        decimals = cohort.written[name].map(_decimals).to_numpy()
        for field in cohort.fields:
            yield from _levels(cohort, name, field, decimals == decimals.max(), int(decimals.max()))


def _decimals(text: str) -> int:
    """Number of decimals without trailing zeros."""
    return len(text.partition(".")[2].rstrip("0"))


def _levels(cohort: Cohort, name: str, field: str, fine: np.ndarray, decimals: int) -> Iterator[dict[str, Any]]:
    """The finding on a field with levels whose values all have fewer decimals."""
    column = cohort.rows[field]
    coarse = ~column.isin(column[fine].unique()).to_numpy()
    rows, without, most = len(fine), int(coarse.sum()), int(fine.sum())
    if not without:
        return
    chance = math.comb(rows - without, most) / math.comb(rows, most)
    if chance < LIMIT:
        values = cohort.values([name])[:, 0]
        levels, others = _named(column[~coarse]), _named(column[coarse])
        medians = f"{np.median(values[~coarse]):g} and {np.median(values[coarse]):g}"
        evidence = (
            f"{name} has {decimals} decimals in {most} of {rows - without} rows with {field} {levels}, and in none of "
            f"{without} with {others}; medians {medians}: the two groups may have been evaluated differently"
        )
        yield finding("warning", cohort.rows, evidence, value=float(chance), limit=LIMIT, n=rows)


def _named(levels: pd.Series) -> str:
    return listed(f"{level:g}" if isinstance(level, float) else level for level in sorted(levels.unique()))
