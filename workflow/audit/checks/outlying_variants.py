"""Outliers in a table of variants, such as another unit, a failed run, or an indicator that is nearly constant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.audit.inputs import finding, listed
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.results import Forecasting

LIMIT = 1.0  # times the range of the other values: a gap that unimodal values in so few rows do not leave
SHARE = 0.1  # of the rows at most: more are a group, not outliers


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A finding for each base: an error for an outlying target, a warning for outlying indicators."""
    cohort = forecasting.cohort
    columns = [*cohort.indicators, *cohort.targets]
    apart = {name: outlying(cohort.values([name])[:, 0]) for name in columns}
    for index, base in enumerate(cohort.ids):
        outlying_columns = [name for name in columns if apart[name][index] > LIMIT]
        if outlying_columns:
            target = any(name in cohort.targets for name in outlying_columns)
            described = listed(_described(cohort, name, index) for name in outlying_columns)
            evidence = f"base {base}: {described}{_others(cohort, index, outlying_columns)}"
            severity = "error" if target else "warning"
            ratio = max(apart[name][index] for name in outlying_columns)
            yield finding(
                severity, cohort.rows.iloc[[index]], evidence, value=float(ratio), limit=LIMIT, n=len(cohort.rows)
            )


def outlying(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outlyingness of each value: its gap to the bulk over the range of the bulk, for the few values beyond the widest gap.

    0 within the bulk; infinite where all others are equal. At most SHARE of the values are outliers at either end.
    """
    result = np.zeros(len(values))
    for side in (values, -values):
        ordered = np.sort(side)
        for few in range(1, int(SHARE * len(values)) + 1):
            gap, rest = ordered[few] - ordered[few - 1], ordered[-1] - ordered[few]
            if gap > LIMIT * rest:
                beyond = side <= ordered[few - 1]
                result[beyond] = np.maximum(result[beyond], gap / rest if rest else np.inf)
    return result


def _described(cohort: Cohort, name: str, index: int) -> str:
    """A value and the range of the bulk."""
    values = cohort.values([name])[:, 0]
    bulk = values[outlying(values) == 0]
    return f"{name} is {values[index]:g} where others are {bulk.min():g} to {bulk.max():g}"


def _others(cohort: Cohort, index: int, outlying_columns: list[str]) -> str:
    """Columns in which a base has the lowest or highest value without being an outlier."""
    rest = [name for name in (*cohort.indicators, *cohort.targets) if name not in outlying_columns]
    values = {name: cohort.values([name])[:, 0] for name in rest}
    ends = [
        f"{end} {name} ({column[index]:g})"
        for name, column in values.items()
        for end, most in (("the lowest", column.min()), ("the highest", column.max()))
        if column[index] == most and (column == most).sum() == 1
    ]
    return f"; it has {listed(ends)} as well" if ends else ""
