"""Recipes and formats compared, fine-tuned from the same bases (analysis `contrast`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding

SECTION = "tuned"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each two recipes and each two formats, averaged over tests in the domain of the fine-tuning task, at
    the last step.
    """
    rows = material.analysis[material.analysis["analysis"] == "contrast"]
    rows = rows[rows["test"].isna() & rows["value"].notna()]
    rows = material.last(
        rows.merge(material.ways[[*selection.PLACE, "shots"]].drop_duplicates(), on=[*selection.PLACE, "shots"])
    )
    verdicts = material.verdicts(rows, pooled=True)
    for index, row in rows.iterrows():
        one, other = row["group"].split("_minus_")
        varied = "recipe" if pd.isna(row["recipe"]) else "format"
        where = about(rows, row, "format" if varied == "recipe" else "recipe")
        tests = f"{int(row['n'])} test{'' if row['n'] == 1 else 's'}"
        text = (
            f"Tuning {'by' if varied == 'recipe' else 'in'} {varied} {one} instead of {other}{where} changes scores in the "
            f"domain tuned on by {material.interval(row)} on average over {tests} at step {int(row['step'])}: {verdicts[index]}."
        )
        yield finding(text, row, KEYS)
