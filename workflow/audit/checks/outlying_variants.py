"""Outliers in a table of variants: other units, a failed run, a collapsed indicator."""

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
    found = forecasting.cohort
    columns = [*found.indicators, *found.targets]
    apart = {name: outlying(found.values([name])[:, 0]) for name in columns}
    for place, base in enumerate(found.ids):
        own = [name for name in columns if apart[name][place] > LIMIT]
        if own:
            target = any(name in found.targets for name in own)
            evidence = (
                f"base {base}: {listed(_described(found, name, place) for name in own)}{_others(found, place, own)}"
            )
            severity = "error" if target else "warning"
            ratio = max(apart[name][place] for name in own)
            yield finding(
                severity, found.rows.iloc[[place]], evidence, value=float(ratio), limit=LIMIT, n=len(found.rows)
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


def _described(found: Cohort, name: str, place: int) -> str:
    """A value and the range of the bulk."""
    values = found.values([name])[:, 0]
    bulk = values[outlying(values) == 0]
    return f"{name} is {values[place]:g} where others are {bulk.min():g} to {bulk.max():g}"


def _others(found: Cohort, place: int, own: list[str]) -> str:
    """Columns in which a base has the lowest or highest value without being an outlier."""
    rest = [name for name in (*found.indicators, *found.targets) if name not in own]
    values = {name: found.values([name])[:, 0] for name in rest}
    ends = [
        f"{end} {name} ({column[place]:g})"
        for name, column in values.items()
        for end, most in (("the lowest", column.min()), ("the highest", column.max()))
        if column[place] == most and (column == most).sum() == 1
    ]
    return f"; it has {listed(ends)} as well" if ends else ""
