"""The hours of a study's jobs, where they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import FindingTables, finding

SECTION = "cost"
READS = ("tables/gpu_hours",)


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding: the hours of all measured jobs of the stages that use a GPU if there is one."""
    table = material.tables["tables/gpu_hours"]
    for _, row in table[table["stage"] == "all"].iterrows():
        if row["measured"] > 0:
            text = (
                f"Pre-training, tuning and prediction took {row['hours']:.2f} hours in {row['measured']:.0f} measured jobs of "
                f"{row['jobs']:.0f} (job hours times GPUs)."
            )
            yield finding(text, row, ["stage"], table="tables/gpu_hours", value=row["hours"], n=row["measured"])
