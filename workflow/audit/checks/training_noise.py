"""Differences between nearly equal bases or between seeds that are larger than the noise of test rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import KEYS, AuditInputs, counted, finding
from workflow.study import grid

NEAR = 0.001  # of the training so far: bases this close should score alike
EVERY_DIFFERENCE = True  # noise between nearly equal bases is in every difference of the suite
FACTOR = 2.0  # times the difference expected from test rows: rows then explain at most a quarter of the variance
MEAN_OF_NORMAL = math.sqrt(2 / math.pi)  # mean absolute value of a normal variable, in standard deviations

MODEL = [key for key in KEYS if key not in grid.BASE_KEYS]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for two neighbouring bases whose scores, tuned or untouched, differ too much; a note for seeds that do."""
    scores = material.primary[material.primary["error"].notna()]
    for _, rows in scores.groupby("family"):
        steps = sorted(rows["step"].unique())
        for early, late in itertools.pairwise(steps):
            if late - early <= NEAR * late:
                yield from _neighbours(material, rows, early, late)
    yield from _seeds(material, scores)


def _neighbours(material: AuditInputs, scores: pd.DataFrame, early: int, late: int) -> Iterator[dict[str, Any]]:
    """The findings on two bases of nearly the same step, tuned and untouched separately."""
    first, second = (scores[scores["step"] == step] for step in (early, late))
    keys = ["family", *MODEL]
    pairs = first[[*keys, "value", "error"]].merge(second[[*keys, "value", "error"]], on=keys, suffixes=("", "_late"))
    pairs["apart"] = (pairs["value"] - pairs["value_late"]).abs()
    pairs["likely"] = MEAN_OF_NORMAL * (pairs["error"] ** 2 + pairs["error_late"] ** 2) ** 0.5
    for (_, tuned), rows in pairs.groupby(["suite", pairs["recipe"] != "none"]):
        apart, likely = rows["apart"].mean(), rows["likely"].mean()
        if apart > FACTOR * likely:
            evidence = (
                f"steps {early} and {late} are {(late - early) / late:.3%} of the training apart, yet {len(rows)} scores of "
                f"{'tuned models' if tuned else 'untouched bases'} differ by {apart:.3f} on average, while test rows "
                f"explain {likely:.3f}; largest: {_largest(rows)}{_smaller(material, rows, apart)}"
            )
            limit = FACTOR * likely
            yield finding("warning", rows, evidence, value=float(apart), limit=float(limit), n=len(rows))


def _largest(rows: pd.DataFrame) -> str:
    """The pairs of scores that differ most."""
    most = rows.nlargest(3, "apart").itertuples()
    return ", ".join(
        f"{row.train} to {row.test} ({row.test_format}) {row.value:.3f} and {row.value_late:.3f}" for row in most
    )


def _smaller(material: AuditInputs, rows: pd.DataFrame, floor: float) -> str:
    """The number of differences between tuned model and base that are smaller than the noise."""
    changes = material.changes
    changes = changes[changes["suite"].isin(rows["suite"]) & changes["base"].notna() & changes["error"].notna()]
    small = int(((changes["value"] - changes["base"]).abs() < floor).sum())
    return (
        f"; {small} of {counted(len(changes), 'difference')} between tuned model and base are smaller"
        if len(changes)
        else ""
    )


def _seeds(material: AuditInputs, scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Models whose seeds differ by more than test rows explain."""
    keys = [key for key in KEYS if key != "seed"]
    grouped = scores[scores["recipe"] != "none"].groupby(keys, as_index=False)
    table = grouped.agg(
        spread=("value", "std"), error=("error", "mean"), seeds=("seed", "nunique"), mean=("value", "mean")
    )
    table = table[table["seeds"] > 1]
    for _, rows in table.groupby(["family", "train", "format", "recipe", "suite"]):
        spread, likely = ((rows[name] ** 2).mean() ** 0.5 for name in ("spread", "error"))
        if spread > FACTOR * likely:
            evidence = (
                f"over {len(rows)} scores, the standard deviation between seeds is {spread:.3f}, while test rows explain "
                f"{likely:.3f}: the score of a single seed is uncertain by this much"
            )
            yield finding("note", rows, evidence, value=float(spread), limit=float(FACTOR * likely), n=len(rows))
