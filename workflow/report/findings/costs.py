"""What the jobs of a study took, as far as they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import Material, finding

SECTION = "cost"
READS = ("tables/gpu_hours",)


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding: the hours of all measured jobs of the stages that take a GPU where there is one."""
    table = material.tables["tables/gpu_hours"]
    for _, row in table[table["stage"] == "all"].iterrows():
        if row["measured"] > 0:
            text = (
                f"Pre-training, tuning and prediction took {row['hours']:.2f} hours in {row['measured']:.0f} measured jobs of "
                f"{row['jobs']:.0f}; a job on several GPUs counts once for each."
            )
            yield finding(text, row, ["stage"], table="tables/gpu_hours", value=row["hours"], n=row["measured"])
