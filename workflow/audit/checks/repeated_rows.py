"""Test rows that occur twice, so that a score counts them twice and its interval is too narrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow import task
from workflow.audit.inputs import AuditInputs, finding, inputs, listed

LIMIT = 0.01  # share of rows: below it, counting them twice moves a score by less than its third digit


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each prepared test with repeated inputs, choices included: a warning above LIMIT, below it a note."""
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
                f"{len(again)} of {len(rows)} test rows repeat the words of another: {listed(again['id'])}; {other} inputs "
                "have different answers"
            )
            severity = "warning" if share > LIMIT else "note"
            yield finding(severity, rows[["test"]], evidence, value=share, limit=LIMIT, n=len(rows))
