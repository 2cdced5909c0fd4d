"""Imported scores whose test is unclear: one name for two metrics, or two different scores of one model on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import KEYS, AuditInputs, at_steps, counted, finding, listed

ERRORS = 3.0  # standard errors: two scores of one cell that differ by more are of different tests
SAME = 0.1  # standard errors: two scores that differ by less are one run; the noise of a bootstrap is smaller

CELL = [key for key in KEYS if key != "suite"]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each test with several metrics or with scores that differ between suites; a note for runs imported twice."""
    # Where a reader names the primary metric of a test, it must be the same everywhere.
    scores = material.imported
    read = scores[scores["primary"].fillna(True).astype(bool)] if "primary" in scores else scores
    for (_, test), rows in read.groupby(["family", "test"]):
        if rows["metric"].nunique() > 1:
            evidence = f"scores of {test} are in different metrics: {listed(rows['metric'])}"
            yield finding("warning", rows, evidence, value=float(rows["metric"].nunique()), limit=1.0, n=len(rows))
    pairs = _pairs(read)
    for (_, first, second), rows in pairs.groupby(["test", "suite", "suite_other"]):
        far, near = rows[rows["distance"] > ERRORS], rows[rows["distance"] <= SAME]
        if len(far):
            most = far.loc[far["apart"].idxmax()]
            evidence = (
                f"{len(far)} of {counted(len(rows), 'model')} evaluated in both score differently in {first} and {second}, "
                f"most at step {most['step']}: {most['value']:.3f} and {most['value_other']:.3f}"
            )
            yield finding("warning", far, evidence, value=float(most["apart"]), n=len(rows))
        if len(near):
            evidence = (
                f"one run imported twice: {counted(len(near), 'score')} at {at_steps(near['step'])} in {first} and {second}, "
                f"such as {near['value'].iloc[0]:.5f} and {near['value_other'].iloc[0]:.5f}"
            )
            yield finding("note", near, evidence, value=float(near["distance"].max()), limit=SAME, n=len(rows))


def _pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Pairs of scores that differ in the suite alone, with their distance in standard errors.

    If one error is not released, the other is used for both; if neither is, the distance is NaN.
    """
    columns = [*CELL, "suite", "value", "error"]
    pairs = scores[columns].merge(scores[columns], on=CELL, suffixes=("", "_other"))
    pairs = pairs[pairs["suite"] < pairs["suite_other"]]
    first, second = pairs["error"].fillna(pairs["error_other"]), pairs["error_other"].fillna(pairs["error"])
    apart = (pairs["value"] - pairs["value_other"]).abs()
    return pairs.assign(apart=apart, distance=apart / (first**2 + second**2) ** 0.5)
