"""Indicators that predict only because they correlate with a config field: among bases with equal values of it they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import finding
from workflow.forecasting.results import Forecasting

HALF = 0.5  # of the distance from chance: an indicator that keeps more also forecasts at equal field values


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A warning for each indicator and field: better or worse than chance over all pairs, at chance where the field is equal.

    Better or worse than chance means an interval over bases that excludes 0.5, and the field must be so too. Split every_pair,
    rule half.
    """
    rows = forecasting.forecasts
    rows = rows[(rows["split"] == "every_pair") & (rows["ties"] == "half")]
    for indicator in forecasting.cohort.indicators:
        for field in forecasting.cohort.fields:
            yield from _finding(forecasting, rows, indicator, field)


def _finding(forecasting: Forecasting, rows: pd.DataFrame, indicator: str, field: str) -> Iterator[dict[str, Any]]:
    """The finding for an indicator and a field, all targets together."""
    parts, left = [], []
    for target in forecasting.cohort.targets:
        rows_of_target = rows[(rows["target"] == target) & (rows["source"].isna() | (rows["source"] == target))]
        whole = _row(rows_of_target, indicator, "all")
        level = _row(rows_of_target, indicator, f"same_{field}")
        alone = _row(rows_of_target, field, "all")
        if level is None or pd.isna(level.low) or not (_off(whole) and _off(alone)) or _off(level):
            continue
        share = (level.accuracy - 0.5) / (whole.accuracy - 0.5)
        if share < HALF:
            left.append(share)
            parts.append(
                f"{target} {whole.accuracy:.2f} [{whole.low:.2f}, {whole.high:.2f}], at equal {field} "
                f"{level.accuracy:.2f} [{level.low:.2f}, {level.high:.2f}] over {level.n_pairs} pairs, "
                f"{field} alone {alone.accuracy:.2f}"
            )
    if parts:
        evidence = f"{indicator} forecasts through {field}: {'; '.join(parts)}"
        yield finding("warning", forecasting.cohort.rows, evidence, value=float(min(left)), limit=HALF, n=len(parts))


def _row(rows: pd.DataFrame, forecaster: str, subset: str) -> Any:
    """The row of a forecaster on a subset; None for a subset without pairs."""
    selected = rows[(rows["forecaster"] == forecaster) & (rows["subset"] == subset)]
    return next(selected.itertuples(), None)


def _off(row: Any) -> bool:
    """Whether an interval excludes chance."""
    return bool(row.low > 0.5 or row.high < 0.5)
