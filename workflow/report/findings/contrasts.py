"""What one way of tuning changes against another on the same bases: recipe with recipe, format with format (`contrast`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import Material, about, finding, one_seed

SECTION = "tuned"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each two recipes and each two formats, over tests of the domain tuned on, at the last step."""
    rows = material.analysis[material.analysis["analysis"] == "contrast"]
    rows = rows[rows["test"].isna() & rows["value"].notna()]
    rows = material.last(
        rows.merge(material.ways[[*selection.PLACE, "shots"]].drop_duplicates(), on=[*selection.PLACE, "shots"])
    )
    verdicts = material.verdicts(rows, pooled=True)
    for place, row in rows.iterrows():
        one, other = row["group"].split("_minus_")
        varied = "recipe" if pd.isna(row["recipe"]) else "format"
        where = about(rows, row, "format" if varied == "recipe" else "recipe")
        tests = f"{int(row['n'])} test{'' if row['n'] == 1 else 's'}"
        text = (
            f"Tuning in {varied} {one} rather than {other}{where} changes scores on what is tuned for by "
            f"{material.interval(row)} on average over {tests} at step {int(row['step'])}: {verdicts[place]}."
        )
        yield finding(text + one_seed(row), row, KEYS)
