"""Differences between prompt formats at the last step, of bases and of tuned models (analysis `format_gap`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding

SECTION = "formats"
READS = ("analysis",)
KEYS = [
    "analysis", "group", "family", "step", "train", "format", "recipe", "suite", "test", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each pair of formats, averaged over tests where there are several."""
    gaps = material.analysis[material.analysis["analysis"] == "format_gap"]
    gaps = gaps[(gaps["estimator"] == "difference_of_means") & gaps["value"].notna()]
    group_keys = [*selection.PLACE, "shots"]
    rows = material.last(gaps[gaps["test"].isna()].merge(material.ways[group_keys], on=group_keys))
    verdicts = material.verdicts(rows, pooled=True)
    for index, row in rows.iterrows():
        first, second = row["group"].split("_minus_")
        who = "tuned models" if pd.isna(row["train"]) else "untouched bases"
        text = (
            f"Prompts in format {first} instead of {second} change scores of {who}{about(rows, row, 'recipe')} by "
            f"{material.interval(row)} on average over {int(row['n'])} tests at step {int(row['step'])}: {verdicts[index]}."
        )
        yield finding(text, row, KEYS)
