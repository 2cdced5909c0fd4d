"""Scores of exactly 0 or exactly 1, from which a difference can go in one direction only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import AuditInputs, at_steps, counted, finding, method_of, models


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each test and limit: a warning for imported untouched bases, whose outputs are not available; else a note.

    `scores_below_chance` covers label tests at 0; `gold_labels` covers label tests that imported untouched bases solve.
    """
    scores = material.primary
    label = scores["test"].map(method_of) == "label"
    doubtful = (scores["recipe"] == "none") & scores.index.isin(material.imported.index)
    at_limits = scores.assign(severity=doubtful.map({True: "warning", False: "note"}))
    at_limits = at_limits[((scores["value"] == 1) & ~(label & doubtful)) | ((scores["value"] == 0) & ~label)]
    for (*_, limit, severity), rows in at_limits.groupby(["family", "suite", "test", "value", "severity"]):
        evidence = (
            f"exactly {limit:.0f}: {counted(len(rows), 'score')} of {models(rows['train'])} at {at_steps(rows['step'])}; from "
            "such a score a difference or ratio can go in one direction only"
        )
        yield finding(severity, rows, evidence, value=float(limit), limit=float(limit), n=len(rows))
