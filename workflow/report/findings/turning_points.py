"""Turning steps of curves along pre-training, of untouched bases, tuned models and gains by tuning (`turning_point`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.analysis.curves import PER, unit
from workflow.report import selection
from workflow.report.findings import FindingTables, about, about_sort, ci, counting, finding, siblings
from workflow.statistics import holm

SECTION = "base"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each curve with a significant turning step (Holm over the curves of its sort), and one for each sort that
    counts the others."""
    whole = material.rows("turning_point", missing=True)
    turns = selection.related(whole[whole["estimator"] == "turning_step"], {"base", "in_domain", "instructed"})
    levels = material.analysis[material.analysis["analysis"] == "performance"]
    span = levels.groupby("family")["step"].agg(["min", "max"])
    for _, members in turns.groupby([*selection.PLACE, "group", turns["train"] == "none"], sort=False):
        named = members["value"].notna() & (holm(members["p_value"].to_numpy(dtype=float)) < 1 - material.level)
        for _, row in members[named].sort_values("value", kind="stable").iterrows():
            text = _bend(material, turns, row, dict(siblings(whole, row, KEYS)), unit(*span.loc[row["family"]]))
            yield placed(row) | finding(text, row, KEYS)
        for _, counted in members.groupby("recipe", sort=False):
            yield placed(counted.iloc[0]) | _unnamed(turns, counted, int((~named[counted.index]).sum()))


def placed(row: Mapping[str, Any]) -> dict[str, str]:
    """The section of a curve."""
    return {"section": SECTION if row["train"] == "none" else "tuned"}


def named_curve(rows: pd.DataFrame, row: Mapping[str, Any]) -> str:
    """The name of a curve: test and model."""
    if row["train"] == "none":
        return f"{row['test']}{about(rows, row)}, untouched base"
    relation = "gain by tuning on" if row["group"] == "gain" else "tuned on"
    return f"{row['test']}{about(rows, row, 'recipe')}, {relation} {row['train']}"


def sort_of(row: Mapping[str, Any]) -> str:
    """The name of a sort of curves."""
    if row["train"] == "none":
        return "untouched bases"
    return "gains by tuning" if row["group"] == "gain" else "tuned models"


def _bend(material: FindingTables, turns: pd.DataFrame, row: Any, beside: Mapping[str, Any], steps: int) -> str:
    """The sentence about a turning step, with the slopes before and after it."""
    slopes = []
    for side, word in (("slope_before", "before"), ("slope_after", "after")):
        points = {name: beside[side][name] * steps / PER * 100 for name in ("value", "low", "high")}
        slopes.append(f"{material.interval(points, '+.2f')} points per {steps:,} steps {word} it")
    return (
        f"{named_curve(turns, row)}: turns at step {row['value']:.0f} ({ci(material.level)} {row['low']:.0f} to "
        f"{row['high']:.0f}; a straight line and smooth laws of learning fit less well, p = {row['p_value']:.3f}), with "
        f"{slopes[0]} and {slopes[1]}."
    )


def _unnamed(turns: pd.DataFrame, members: pd.DataFrame, count: int) -> dict[str, Any]:
    """The number of curves of a sort without a turning step."""
    row = members.iloc[0]
    text = (
        f"No turning step is named for {count} of {len(members)} curves of {sort_of(row)}{about_sort(turns, row)}: "
        "a straight line or a smooth law of learning predicts held-out steps as well, the step moves when other steps are left "
        "out, or the steps are too few to check that."
    )
    return counting(text, members, KEYS, count)
