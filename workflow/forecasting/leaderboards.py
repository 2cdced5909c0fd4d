"""Tables to read: forecasters beside each other and beside the baselines, targets as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from workflow.forecasting.results import Forecasting
from workflow.storage import files
from workflow.storage.markdown import markdown

ORDER = ["chance", "field", "config", "indicator", "combination", "comparer", "both"]
ROWS = ["split", "subset", "kind", "forecaster"]


def accuracies(found: Forecasting) -> pd.DataFrame:
    """Accuracy over all pairs of each split, tie rule `half`, what is fitted being fitted on the target itself."""
    rows = found.forecasts
    return _wide(rows[rows["subset"] == "all"], found.cohort.targets)


def equal_configs(found: Forecasting) -> pd.DataFrame:
    """The same over every pair, for pairs that have a config field in common or differ in nothing else."""
    rows = found.forecasts
    matched = rows["subset"].str.startswith(("same_", "only_"))
    return _wide(rows[matched & (rows["split"] == "every_pair")], found.cohort.targets)


def gap_quintiles(found: Forecasting) -> pd.DataFrame:
    """The same over every pair, by how far apart the two bases are."""
    rows = found.forecasts
    return _wide(rows[rows["subset"].str.startswith("gap_") & (rows["split"] == "every_pair")], found.cohort.targets)


def transfer(found: Forecasting) -> pd.DataFrame:
    """Accuracy over the random splits of what was fitted on one target and forecasts another, tie rule `half`."""
    rows = found.forecasts
    rows = rows[
        (rows["subset"] == "all") & (rows["split"] == "random") & (rows["ties"] == "half") & rows["source"].notna()
    ]
    return _pivoted(rows, [*ROWS, "source"], found.cohort.targets)


def picks(found: Forecasting) -> pd.DataFrame:
    """Regret of taking the first base of a forecaster's order, and shortlists that hold the best, in random splits."""
    rows = found.rankings
    rows = rows[(rows["split"] == "random") & rows["k"].isna() & _own(rows)]
    rows = rows.assign(accuracy=rows["value"])
    return _pivoted(rows, ["statistic", "kind", "forecaster"], found.cohort.targets)


TABLES: dict[str, Callable[[Forecasting], pd.DataFrame]] = {
    "forecast_accuracy": accuracies,
    "forecast_at_equal_config": equal_configs,
    "forecast_by_gap": gap_quintiles,
    "forecast_transfer": transfer,
    "forecast_picks": picks,
}


def _own(rows: pd.DataFrame) -> pd.Series:
    """Rows of what is fitted on the target itself or not at all."""
    return rows["source"].isna() | (rows["source"] == rows["target"])


def _wide(rows: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Rows of the tie rule `half` and own source, each target with its interval."""
    return _pivoted(rows[(rows["ties"] == "half") & _own(rows)], ROWS, targets)


def _pivoted(rows: pd.DataFrame, keys: list[str], targets: Sequence[str]) -> pd.DataFrame:
    """One row for each of some keys; for each target its number and the ends of its interval, in the order of ORDER."""
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
    """A table with each interval behind its number, as text, for Markdown."""
    merged = {}
    for name in table.columns:
        if {f"{name}_low", f"{name}_high"} <= set(table.columns):
            ends = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
            merged[name] = [
                f"{value:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]") for value, low, high in ends
            ]
    ends = [f"{name}_{end}" for name in merged for end in ("low", "high")]
    return table.drop(columns=ends).assign(**merged)


def write(table: pd.DataFrame, csv: Path, page: Path) -> None:
    """Write a table as CSV in full precision and as Markdown to read."""
    files.write_text(table.to_csv(index=False), csv)
    files.write_text(markdown(readable(table)), page)
