"""Changes by tuning out of domain, averaged over the pairs of a kind of task and over all steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import FindingTables, about, finding

SECTION = "transfer"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each kind of task with several pairs of task tuned on and test."""
    rows = material.rows("domain_change", "difference_of_means")
    rows = rows[rows["step"].isna() & rows["train"].isna() & rows["low"].notna()]
    verdicts = material.verdicts(rows, pooled=True)
    for index, row in rows.iterrows():
        text = (
            f"Out of domain, tuning on tasks of kind {row['group']}{about(rows, row, 'recipe')} changes scores by "
            f"{material.interval(row)} on average over {int(row['n'])} pairs of task and test and all steps: {verdicts[index]}."
        )
        yield finding(text, row, KEYS)
