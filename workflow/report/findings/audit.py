"""What the audit of a study found, counted, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import WEAKENING, Material, finding

SECTION = "audit"
READS = ("audit",)
SEVERITIES = (*WEAKENING, "note")


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each severity; whatever is found to be an error is said in full on the audit's own page."""
    table = material.tables["audit"]
    for severity in SEVERITIES:
        rows = table[table["severity"] == severity]
        checks = sorted(rows["check"].unique())
        of = f": {', '.join(checks)}" if checks else ""
        plural = "" if len(rows) == 1 else "s"
        text = f"The audit has {len(rows)} {severity}{plural}{of}."
        yield finding(text, {"severity": severity}, ["severity"], table="audit", value=len(rows), n=len(table))
