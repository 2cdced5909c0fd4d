"""Changes by fine-tuning in the domain of the fine-tuning task: fine-tuned minus base at the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding

SECTION = "tuned"
READS = ("analysis",)
KEYS = [
    "analysis", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each model and test, the largest gain first."""
    rows = material.last(material.rows("tuning_difference", "difference_of_means"))
    rows = selection.related(rows, {"in_domain", "instructed"})
    verdicts, sure = material.verdicts(rows), material.significant(rows)
    for index, row in rows.sort_values("value", ascending=False, kind="stable").iterrows():
        name = f"{row['train']}{about(rows, row, 'recipe')}"
        where = f"{selection.metric_label(row['test'])} on {row['test']}"
        step = f"at step {int(row['step'])}"
        if sure[index]:
            verb = "raises" if row["value"] > 0 else "lowers"
            size = {**row, **dict(zip(("value", "low", "high"), _size(row), strict=True))}
            text = f"Tuning on {name} {verb} {where} by {material.interval(size)} {step}: {verdicts[index]}."
        else:
            text = f"Tuning on {name} changes {where} by {material.interval(row)} {step}: {verdicts[index]}."
        yield finding(text, row, KEYS)


def _size(row: Any) -> tuple[float, float, float]:
    """The absolute value of a change: value, low, high."""
    ends = np.sign(row["value"]) * np.array([row["low"], row["high"]], dtype=float)
    return abs(row["value"]), float(ends.min()), float(ends.max())
