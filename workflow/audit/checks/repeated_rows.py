"""Test rows that occur twice: scores count them twice and intervals are too narrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow import task
from workflow.audit.inputs import AuditInputs, finding, inputs, listed

LIMIT = 0.01  # share of rows; below it the effect on a score is below its third digit


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each prepared test with repeated inputs, choices included: a warning above LIMIT, else a note."""
    for name in material.tasks:
        if not task.load(name).test:
            continue
        rows = inputs(material, name, task.load(name).test, choices=True).assign(test=name)
        again = rows[rows["text"].duplicated()]
        if len(again):
            share = len(again) / len(rows)
            answers = rows.groupby("text")["answer"].nunique()
            other = int((answers[answers.index.isin(again["text"])] > 1).sum())
            evidence = (
                f"{len(again)} of {len(rows)} test rows repeat the input of another: {listed(again['id'])}; {other} of these "
                "inputs have different answers"
            )
            severity = "warning" if share > LIMIT else "note"
            yield finding(severity, rows[["test"]], evidence, value=share, limit=LIMIT, n=len(rows))
