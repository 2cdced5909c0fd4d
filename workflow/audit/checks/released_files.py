"""Remarks on imported files: names that contradict the content, repeated scores, files left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, counted, finding, listed

SEVERITIES = {"mismatch": "warning", "repeated": "note", "skipped": "note", "other": "note"}
TEXTS = {
    "mismatch": "with a name that contradicts the content; the content is used",
    "repeated": "with scores that are also in another file",
    "skipped": "left out by `skip` of the import",
    "other": "with a remark",
}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each family and sort of remark, with its files; a warning for scores that differ between two files."""
    files = material.files
    for (remark, _), rows in files[files["remark"].notna()].groupby(["remark", files["family"].fillna("")], sort=False):
        differ = rows["evidence"].str.contains("with another value")
        for selected, severity in ((rows[differ], "warning"), (rows[~differ], SEVERITIES[remark])):
            if len(selected):
                yield _finding(severity, remark, selected, len(files))


def _finding(severity: str, remark: str, rows: pd.DataFrame, count: int) -> dict[str, Any]:
    """One finding on some files."""
    parts = [f"{row.file}: {row.evidence}" for row in rows.itertuples()]
    evidence = f"{counted(len(rows), 'file')} {TEXTS[remark]}: {listed(parts, 40)}"
    keys = rows[["family"]].dropna() if rows["family"].notna().all() else rows[[]]
    return finding(severity, keys, evidence, value=float(len(rows)), limit=0.0, n=count)
