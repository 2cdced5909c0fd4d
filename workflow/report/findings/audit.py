"""The number of errors, warnings and notes of the audit, with the checks that made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import WEAKENING, FindingTables, finding

SECTION = "audit"
READS = ("audit",)
SEVERITIES = (*WEAKENING, "note")


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each severity. The page of findings begins with the errors in full."""
    table = material.tables["audit"]
    for severity in SEVERITIES:
        rows = table[table["severity"] == severity]
        checks = sorted(rows["check"].unique())
        names = f": {', '.join(checks)}" if checks else ""
        plural = "" if len(rows) == 1 else "s"
        text = f"The audit has {len(rows)} {severity}{plural}{names}."
        yield finding(text, {"severity": severity}, ["severity"], table="audit", value=len(rows), n=len(table))
