"""What more pre-training is forecast to add to untouched bases and to tuned models, or that it cannot be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import drawing
from workflow.analyses.extrapolation import COVERAGE
from workflow.findings import Material, about, finding, siblings, signed
from workflow.findings.turning_points import named_curve, placed, sort_of

SECTION = "base"
READS = ("analysis",)
KEYS = [
    "analysis", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip
SORT = [*drawing.PLACE, "recipe"]


def find(material: Material) -> Iterator[dict[str, Any]]:
    """For each sort of curves the forecasts at the latest step that can be forecast; where there is none, one finding that says
    so."""
    whole = material.rows("extrapolation", missing=True)
    gains = whole[whole["estimator"] == "held_out_gain"]
    changes = whole[whole["estimator"] == "later_change"]
    for place, own in gains.groupby(SORT, sort=False):
        own_changes = changes[(changes[SORT] == list(place)).all(axis=1) & changes["value"].notna()]
        latest = own_changes[own_changes["step"] == own_changes["step"].max()]
        shown = drawing.related(latest, {"base", "in_domain", "instructed"})
        if latest.empty:
            yield _unknown(gains, own)
        for _, row in shown.sort_values("value", ascending=False, kind="stable").iterrows():
            yield _forecast(shown, row, dict(siblings(whole, row, KEYS))["later_score"])


def _forecast(rows: pd.DataFrame, row: Any, score: Any) -> dict[str, Any]:
    verdict = "" if row["low"] * row["high"] > 0 else ", which may be no change"
    text = (
        f"{named_curve(rows, row)}: more pre-training, to step {int(row['step'])}, is forecast to change the score by "
        f"{interval(row)}{verdict}, to {interval(score, '.3f')}."
    )
    return placed(row) | finding(text, row, KEYS)


def interval(row: Any, form: str = "+.3f") -> str:
    """A forecast with its interval."""
    value, low, high = (signed(row[name], form) for name in ("value", "low", "high"))
    return f"{value} ({COVERAGE:.0%} {low} to {high})"


def _unknown(gains: pd.DataFrame, own: pd.DataFrame) -> dict[str, Any]:
    """That nothing is forecast, and why."""
    row = own.iloc[0]
    sort = {**row, "train": "none" if row["recipe"] == "none" else None}
    who = f"{sort_of(sort)}{about(gains, sort, 'recipe')}"
    if pd.isna(row["value"]):
        why = "it takes four curves over the same steps, and steps to hold out that lie as far behind others"
    else:
        why = (
            f"forecasts of held-out steps are not significantly better than the last score (squared error {row['value']:.0%} "
            f"lower, p = {row['p_value']:.3f})"
        )
    text = f"What more pre-training would add to scores of {who} cannot be told: {why}."
    return placed(sort) | finding(text, row, KEYS)
