"""Leaderboards: forecasters and baselines as rows, targets as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from workflow.forecasting.results import Forecasting
from workflow.storage import files
from workflow.storage.markdown import markdown

ORDER = ["chance", "field", "config", "indicator", "combination", "comparer", "both"]
ROWS = ["split", "subset", "kind", "forecaster"]


def accuracies(forecasting: Forecasting) -> pd.DataFrame:
    """Return accuracy over all pairs of each split, tie rule `half`, forecasters fitted on the same target."""
    rows = forecasting.forecasts
    return _wide(rows[rows["subset"] == "all"], forecasting.cohort.targets)


def equal_configs(forecasting: Forecasting) -> pd.DataFrame:
    """Return the same for split `every_pair`, for pairs that share a config field or differ in one field only."""
    rows = forecasting.forecasts
    matched = rows["subset"].str.startswith(("same_", "only_"))
    return _wide(rows[matched & (rows["split"] == "every_pair")], forecasting.cohort.targets)


def gap_quintiles(forecasting: Forecasting) -> pd.DataFrame:
    """Return the same for split `every_pair`, by the difference between the two bases' targets."""
    rows = forecasting.forecasts
    return _wide(
        rows[rows["subset"].str.startswith("gap_") & (rows["split"] == "every_pair")], forecasting.cohort.targets
    )


def transfer(forecasting: Forecasting) -> pd.DataFrame:
    """Return accuracy in random splits of forecasters fitted on one target and evaluated on another, tie rule `half`."""
    rows = forecasting.forecasts
    rows = rows[
        (rows["subset"] == "all") & (rows["split"] == "random") & (rows["ties"] == "half") & rows["source"].notna()
    ]
    return _pivoted(rows, [*ROWS, "source"], forecasting.cohort.targets)


def picks(forecasting: Forecasting) -> pd.DataFrame:
    """Return the regret of a forecaster's first base, and lengths of shortlists with the best base, in random splits."""
    rows = forecasting.rankings
    rows = rows[(rows["split"] == "random") & rows["k"].isna() & _own(rows)]
    rows = rows.assign(accuracy=rows["value"])
    return _pivoted(rows, ["statistic", "kind", "forecaster"], forecasting.cohort.targets)


TABLES: dict[str, Callable[[Forecasting], pd.DataFrame]] = {
    "forecast_accuracy": accuracies,
    "forecast_at_equal_config": equal_configs,
    "forecast_by_gap": gap_quintiles,
    "forecast_transfer": transfer,
    "forecast_picks": picks,
}


def _own(rows: pd.DataFrame) -> pd.Series:
    """Return a mask of forecasters that are fitted on the same target or not fitted."""
    return rows["source"].isna() | (rows["source"] == rows["target"])


def _wide(rows: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Return rows with tie rule `half` and the same source, each target with its interval."""
    return _pivoted(rows[(rows["ties"] == "half") & _own(rows)], ROWS, targets)


def _pivoted(rows: pd.DataFrame, keys: list[str], targets: Sequence[str]) -> pd.DataFrame:
    """Return one row for each combination of keys, with value and interval of each target, sorted by ORDER."""
    rows = rows.assign(order=rows["kind"].map(ORDER.index), place=range(len(rows)))
    wide = rows.pivot(index=keys, columns="target", values=["accuracy", "low", "high"])
    columns = [(value, target) for target in targets for value in ("accuracy", "low", "high")]
    wide = wide.reindex(columns=columns).set_axis(
        [t if v == "accuracy" else f"{t}_{v}" for v, t in columns], axis="columns"
    )
    order = rows.groupby(keys).agg({"order": "first", "place": "first"})
    first = [key for key in keys if key in ("split", "subset", "statistic")]
    return wide.join(order).reset_index().sort_values([*first, "order", "place"]).drop(columns=["order", "place"])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for Markdown: numbers with their intervals as text."""
    merged = {}
    for name in table.columns:
        if {f"{name}_low", f"{name}_high"} <= set(table.columns):
            intervals = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
            merged[name] = [
                f"{value:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]") for value, low, high in intervals
            ]
    ends = [f"{name}_{end}" for name in merged for end in ("low", "high")]
    return table.drop(columns=ends).assign(**merged)


def write(table: pd.DataFrame, csv: Path, page: Path) -> None:
    """Write a table as CSV in full precision and as Markdown."""
    files.write_text(table.to_csv(index=False), csv)
    files.write_text(markdown(readable(table)), page)
