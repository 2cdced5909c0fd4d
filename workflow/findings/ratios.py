"""What tuning on one sort of task changes of scores on the other, as a share of the base's (analysis `ratio_of_change`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow import drawing
from workflow.findings import Material, about, finding, siblings

SECTION = "transfer"
READS = ("analysis",)
KEYS = ["analysis", "group", "family", "step", "recipe", "suite", "test_format", "shots", "estimator"]


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each direction: the ratio of means, which no single cell dominates, with the mean of ratios."""
    rows = material.rows("ratio_of_change")
    rows = rows[rows["step"].isna()]
    shown = rows[rows["estimator"] == "ratio_of_means"]
    for _, row in shown.iterrows():
        beside = dict(siblings(rows, row, KEYS))
        told = "" if row["low"] * row["high"] > 0 else ", which cannot be told from 0"
        mean = beside.get("mean_of_ratios")
        aside = "" if mean is None else f"; the mean of the single ratios is {mean['value']:.3f}".replace("-", "−")
        text = (
            f"{drawing.named(row['group']).capitalize()}{about(shown, row, 'recipe')}: tuning changes mean scores by a "
            f"share of {material.interval(row)} over {int(row['n'])} pairs and all steps{told}{aside}."
        )
        yield finding(text, row, KEYS)
