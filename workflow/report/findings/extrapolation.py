"""Forecast changes of scores with more pre-training, of untouched bases and tuned models (analysis `extrapolation`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.analysis.analyses.extrapolation import ASSUMED, COVERAGE, SCORES
from workflow.report import selection
from workflow.report.findings import FindingTables, about, counting, finding, siblings, signed
from workflow.report.findings.turning_points import named_curve, placed, sort_of
from workflow.statistics import POWER, detectable, holm, normal_width

SECTION = "base"
READS = ("analysis",)
RELATED = {"base", "in_domain", "instructed"}
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip
SORT = [*selection.PLACE, "recipe", "group"]


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """For each sort of curves, at the latest step with a forecast: one finding for each significant change (Holm over its
    sort), and one that counts the others. A sort without any forecast has one finding that says why."""
    whole = material.rows("extrapolation", missing=True)
    gains = whole[whole["estimator"] == "held_out_gain"]
    changes = whole[whole["estimator"] == "later_change"]
    for group_keys, members in gains.groupby(SORT, sort=False):
        known = changes[(changes[SORT] == list(group_keys)).all(axis=1) & changes["value"].notna()]
        latest = selection.related(known[known["step"] == known["step"].max()], RELATED)
        if known.empty:
            yield _unknown(material, whole, gains, members)
        elif len(latest):
            yield from _forecasts(material, whole, latest)


def _forecasts(material: FindingTables, whole: pd.DataFrame, latest: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The forecasts of one sort of curves at one step."""
    p_values = latest["p_value"].to_numpy(dtype=float)
    moves = pd.Series(holm(p_values) < 1 - material.level, index=latest.index)
    for _, row in latest[moves].sort_values("value", ascending=False, kind="stable").iterrows():
        score = dict(siblings(whole, row, KEYS))["later_score"]
        text = (
            f"{named_curve(whole, row)}: by step {int(row['step'])} more pre-training is forecast to change the score by "
            f"{interval(row)}, to {interval(score, '.3f')}; significant (Holm). {ASSUMED}."
        )
        yield placed(row) | finding(text, row, KEYS)
    row, same, mean = latest.iloc[0], int((~moves).sum()), signed(float(latest["value"].mean()), "+.3f")
    small = float(detectable_changes(latest, material.level).median())
    quantity = "score" if row["group"] == SCORES else row["group"]
    text = (
        f"More pre-training of {sort_of({**row, 'group': None})}{about(whole, row, 'recipe')}: by step {int(row['step'])} no "
        f"significant change (Holm) of the {quantity} is forecast for {same} of {len(latest)} curves; the mean of all forecasts "
        f"is {mean}; detectable change {small:.3f} (median over curves, power {POWER:g}). {ASSUMED}."
    )
    yield placed(row) | counting(text, latest, KEYS, same)


def detectable_changes(rows: pd.DataFrame, level: float) -> pd.Series:
    """The smallest change of each curve that would be significant with power POWER, by the wider side of its interval, at the
    level that Holm's procedure requires of the first of all rows."""
    wider = np.maximum(rows["value"] - rows["low"], rows["high"] - rows["value"])
    return (wider / normal_width(COVERAGE)).map(lambda error: detectable(error, 1 - (1 - level) / len(rows)))


def interval(row: Any, form: str = "+.3f") -> str:
    """A forecast with its interval."""
    value, low, high = (signed(row[name], form) for name in ("value", "low", "high"))
    return f"{value} ({100 * COVERAGE:g} % interval {low} to {high})"


def _unknown(
    material: FindingTables, whole: pd.DataFrame, gains: pd.DataFrame, members: pd.DataFrame
) -> dict[str, Any]:
    """The finding of a sort without a forecast, with the reason."""
    known = members[members["value"].notna()]
    row = (members if known.empty else known).iloc[0]
    sort = {**row, "train": "none" if row["recipe"] == "none" else None}
    who = f"{sort_of({**sort, 'group': None})}{about(gains, sort, 'recipe')}"
    fallen: Any = dict(siblings(whole, row, KEYS)).get("shortfall", {}).get("p_value")
    if pd.isna(row["value"]):
        why = (
            "a forecast needs four curves with the same steps, and in them three steps or more before a held-out step "
            "at that distance"
        )
    elif row["p_value"] < 1 - material.level and fallen < 1 - COVERAGE:
        why = (
            f"the last scores are lower than earlier steps forecast, so the run may have turned down (p = {fallen:.3f})"
        )
    else:
        why = (
            f"forecasts of held-out steps are not significantly better than the last score, or no better than a line "
            f"in log steps (squared error {abs(row['value']):.0%} {'lower' if row['value'] > 0 else 'higher'} than that of the "
            f"last score, p = {row['p_value']:.3f})"
        )
    quantity = "scores" if row["group"] == SCORES else row["group"]
    text = f"More pre-training of {who}: no change of {quantity} is forecast, since {why}."
    return placed(sort) | finding(text, row, KEYS)
