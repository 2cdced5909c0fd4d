"""What tuning on one sort of task changes of scores on the other, as a share of the base's (analysis `ratio_of_change`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report import selection
from workflow.report.findings import Material, about, finding, siblings

SECTION = "transfer"
READS = ("analysis",)
KEYS = ["analysis", "group", "family", "step", "recipe", "suite", "test_format", "shots", "estimator"]


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each direction: the ratio of means, which no single cell dominates, with the mean of ratios."""
    rows = material.rows("ratio_of_change")
    rows = rows[rows["step"].isna()]
    shown = rows[rows["estimator"] == "ratio_of_means"]
    verdicts = material.verdicts(shown, pooled=True)
    for place, row in shown.iterrows():
        beside = dict(siblings(rows, row, KEYS))
        mean = beside.get("mean_of_ratios")
        aside = "" if mean is None else f"; the mean of the single ratios is {mean['value']:.3f}".replace("-", "−")
        text = (
            f"{selection.named(row['group']).capitalize()}{about(shown, row, 'recipe')}: tuning changes the mean score by "
            f"{material.interval(row)} of the base's over {int(row['n'])} pairs and all steps: {verdicts[place]}{aside}."
        )
        yield finding(text, row, KEYS)
