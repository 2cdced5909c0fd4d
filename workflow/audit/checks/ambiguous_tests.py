"""Imported tests whose name means more than one thing: two metrics, or one cell with two different scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import KEYS, Material, at_steps, counted, finding, listed

ERRORS = 3.0  # standard errors from which on two readings of one cell are of different things
SAME = 0.1  # standard errors up to which they are one run read twice: a bootstrap's own noise is less

CELL = [key for key in KEYS if key != "suite"]


def check(material: Material) -> Iterator[dict[str, Any]]:
    """A warning for each test with several metrics, or with scores that suites disagree on; a note for runs read twice."""
    # Where a reader says in which of several metrics a test is read, that one must not be another elsewhere.
    scores = material.imported
    read = scores[scores["primary"].fillna(True).astype(bool)] if "primary" in scores else scores
    for (_, test), rows in read.groupby(["family", "test"]):
        if rows["metric"].nunique() > 1:
            evidence = f"scores of {test} are in {listed(rows['metric'])}, so they are of different tasks"
            yield finding("warning", rows, evidence, value=float(rows["metric"].nunique()), limit=1.0, n=len(rows))
    pairs = _pairs(read)
    for (_, first, second), rows in pairs.groupby(["test", "suite", "suite_other"]):
        far, near = rows[rows["distance"] > ERRORS], rows[rows["distance"] <= SAME]
        if len(far):
            most = far.loc[far["apart"].idxmax()]
            evidence = (
                f"{len(far)} of {counted(len(rows), 'model')} tested in both score differently in {first} and in {second}, "
                f"most at step {most['step']}: {most['value']:.3f} and {most['value_other']:.3f}"
            )
            yield finding("warning", far, evidence, value=float(most["apart"]), n=len(rows))
        if len(near):
            evidence = (
                f"one run read twice: {counted(len(near), 'score')} at {at_steps(near['step'])} in {first} and in {second}, such "
                f"as {near['value'].iloc[0]:.5f} and {near['value_other'].iloc[0]:.5f}"
            )
            yield finding("note", near, evidence, value=float(near["distance"].max()), limit=SAME, n=len(rows))


def _pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Each two scores that differ in their suite alone, with their distance in standard errors.

    Where one error is not released the other's stands for it; where neither is, the distance is not known.
    """
    columns = [*CELL, "suite", "value", "error"]
    pairs = scores[columns].merge(scores[columns], on=CELL, suffixes=("", "_other"))
    pairs = pairs[pairs["suite"] < pairs["suite_other"]]
    first, second = pairs["error"].fillna(pairs["error_other"]), pairs["error_other"].fillna(pairs["error"])
    apart = (pairs["value"] - pairs["value_other"]).abs()
    return pairs.assign(apart=apart, distance=apart / (first**2 + second**2) ** 0.5)
