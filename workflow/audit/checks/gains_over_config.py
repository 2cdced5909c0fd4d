"""Indicators that predict no better than the config fields of the bases, which cost nothing to measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import finding, listed
from workflow.forecasting.results import Forecasting


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A warning for each target on which no measurement beats the config fields; a note where one does.

    Compared are indicators, combinations and comparers, by the interval of their gain (split random, rule half).
    """
    rows = forecasting.forecasts
    rows = rows[(rows["split"] == "random") & (rows["subset"] == "all") & (rows["ties"] == "half")]
    rows = rows[rows["source"].isna() | (rows["source"] == rows["target"])]
    for target in forecasting.cohort.targets:
        rows_of_target = rows[rows["target"] == target]
        config = next(rows_of_target[rows_of_target["kind"] == "config"].itertuples(), None)
        if config is None:  # too few bases to fit
            continue
        measured = rows_of_target[rows_of_target["kind"].isin(["indicator", "combination", "comparer"])]
        better = measured[measured["gain_low"] > 0]
        best = measured.loc[measured["accuracy"].idxmax()]
        figures = (
            f"{best['forecaster']}, the best of {len(measured)}, has {best['accuracy']:.2f}, a gain of "
            f"{best['gain']:+.2f} [{best['gain_low']:+.2f}, {best['gain_high']:+.2f}] over the config "
            f"fields' {config.accuracy:.2f}"
        )
        if len(better):
            evidence = (
                f"{target}: {listed(better['forecaster'])} forecast better than the config fields alone; {figures}"
            )
        else:
            evidence = f"{target}: no indicator, combination or comparer forecasts better than the config fields alone; {figures}"
        severity = "note" if len(better) else "warning"
        yield finding(
            severity, forecasting.cohort.rows, evidence, value=float(best["gain"]), limit=0.0, n=len(measured)
        )
