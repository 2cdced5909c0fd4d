"""Declines of scores by the last steps of pre-training, of untouched bases and of tuned models (analysis `decline`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about_sort, ci, counting, finding, siblings, signed
from workflow.report.findings.turning_points import KEYS, named_curve, placed, sort_of
from workflow.statistics import POWER, holm, normal_width

SECTION = "base"
READS = ("analysis",)


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each curve with a significant decline (Holm over the curves of its sort), and one for each sort that
    counts the others."""
    whole = material.rows("decline")
    rows = selection.related(whole[whole["estimator"] == "decline"], {"base", "in_domain", "instructed"})
    rows = rows[rows["group"] == "level"]
    for _, members in rows.groupby([*selection.PLACE, rows["train"] == "none"], sort=False):
        falls = pd.Series(holm(members["p_value"].to_numpy(dtype=float)) < 1 - material.level, index=members.index)
        for _, row in members[falls].sort_values("value", ascending=False, kind="stable").iterrows():
            yield placed(row) | finding(_decline(material, rows, row, dict(siblings(whole, row, KEYS))), row, KEYS)
        small = detectable(members[~falls], material.level)
        for _, counted in members.groupby("recipe", sort=False):
            yield placed(counted.iloc[0]) | _others(rows, counted, small[small.index.isin(counted.index)])


def _decline(material: FindingTables, rows: pd.DataFrame, row: Any, beside: Mapping[str, Any]) -> str:
    ends = {name: f"{beside[name]['value']:.0f}" for name in ("best_from", "best_to", "last_from", "last_to")}
    last, best = (_run(ends[f"{run}_from"], ends[f"{run}_to"]) for run in ("last", "best"))
    return (
        f"{named_curve(rows, row)}: scores decline. The mean over {last}, the last, is {row['value']:.3f} below that over "
        f"{best}, the best ({ci(material.level)} at least {signed(row['low'])}, corrected for choosing both; significant, Holm)."
    )


def _run(first: str, last: str) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def detectable(rows: pd.DataFrame, level: float) -> pd.Series:
    """The true decline of each curve that would be found with power POWER.

    The distance from the estimate to its lower bound, which is corrected for choosing the runs, is taken for that of a one-sided
    normal test, at the level that Holm's procedure requires of the first of all rows.
    """
    needed = normal_width(1 - 2 * (1 - level) / max(1, len(rows))) + normal_width(2 * POWER - 1)
    return (rows["value"] - rows["low"]) * needed / normal_width(2 * level - 1)


def _others(rows: pd.DataFrame, members: pd.DataFrame, small: pd.Series) -> dict[str, Any]:
    """The number of curves without a significant decline. small: their detectable declines."""
    row = members.iloc[0]
    text = f"No significant decline (Holm) in {len(small)} of {len(members)} curves of {sort_of(row)}{about_sort(rows, row)}"
    if small.notna().any():
        text += f"; detectable decline {small.median():.3f} (median over curves, power {POWER:g})"
    return counting(f"{text}.", members, KEYS, len(small))
