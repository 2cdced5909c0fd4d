"""Relative changes of scores on tasks of the other sort, classification or generation (analysis `ratio_of_change`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding, siblings, signed

SECTION = "transfer"
READS = ("analysis",)
KEYS = ["analysis", "group", "family", "step", "recipe", "suite", "test_format", "shots", "estimator"]


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each direction: the ratio of means, which no single cell dominates, and the mean of ratios."""
    rows = material.rows("ratio_of_change")
    rows = rows[rows["step"].isna()]
    shown = rows[rows["estimator"] == "ratio_of_means"]
    verdicts = material.verdicts(shown, pooled=True, form=".1%")
    for index, row in shown.iterrows():
        beside = dict(siblings(rows, row, KEYS))
        mean = beside.get("mean_of_ratios")
        beside_it = "" if mean is None else f"; the mean of the single ratios is {signed(mean['value'], '+.1%')}"
        text = (
            f"{selection.named(row['group']).capitalize()}{about(shown, row, 'recipe')}: tuning changes the mean score by "
            f"{material.interval(row, '+.1%')} relative to the base over {int(row['n'])} pairs of task and test and all steps: "
            f"{verdicts[index]}{beside_it}."
        )
        yield finding(text, row, KEYS)
