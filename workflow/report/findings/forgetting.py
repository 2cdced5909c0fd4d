"""Losses of fine-tuned models on text and right answers against those of their bases, at the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report.findings import FindingTables, finding

SECTION = "transfer"
READS = ("forgetting",)
TABLE = "forgetting"
MODEL = ["family", "step", "train", "format", "recipe"]


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each fine-tuned model and indicator, the largest rise first; Holm's procedure is over all of them."""
    rows = material.last(material.tables[TABLE])
    rows = rows[rows["group"].isna()]
    sure, verdicts = material.significant(rows), material.verdicts(rows)
    several = [key for key in ("family", "format", "recipe") if rows[key].nunique() > 1]
    for index, row in rows.sort_values("value", ascending=False, kind="stable").iterrows():
        names = [str(row[key]) for key in several]
        name = f"{row['train']} ({', '.join(names)})" if names else row["train"]
        verb = "changes" if not sure[index] else "raises" if row["value"] > 0 else "lowers"
        text = (
            f"Tuning on {name} {verb} the loss that {row['indicator']} measures by {material.interval(row)} bits per byte at "
            f"step {int(row['step'])}: {verdicts[index]}."
        )
        yield finding(text, row, [*MODEL, "indicator", "group"], TABLE)
