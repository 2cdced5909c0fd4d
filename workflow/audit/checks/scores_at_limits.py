"""Scores of exactly 0 or exactly 1, which leave no room for a difference and no interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import AuditInputs, at_steps, counted, finding, method_of, models


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test and limit: a warning for imported untouched bases, whose outputs none can look at.

    Label tests at 0 are the concern of `scores_below_chance`, imported untouched bases that solve them of `gold_labels`.
    """
    scores = material.primary
    label = scores["test"].map(method_of) == "label"
    doubtful = (scores["recipe"] == "none") & scores.index.isin(material.imported.index)
    found = scores.assign(severity=doubtful.map({True: "warning", False: "note"}))
    found = found[((scores["value"] == 1) & ~(label & doubtful)) | ((scores["value"] == 0) & ~label)]
    for (*_, limit, severity), rows in found.groupby(["family", "suite", "test", "value", "severity"]):
        evidence = (
            f"exactly {limit:.0f}: {counted(len(rows), 'score')} of {models(rows['train'])} at {at_steps(rows['step'])}; such "
            "scores have no interval, and leave differences and ratios one way to go"
        )
        yield finding(severity, rows, evidence, value=float(limit), limit=float(limit), n=len(rows))
