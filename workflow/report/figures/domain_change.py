"""Change by fine-tuning on tests out of domain, by kind of task (arXiv 2408.06663, v5 Figure 5, v1 7; of another family v5
Figure 15).
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from workflow import task
from workflow.report import drawing, selection
from workflow.report.drawing import Style

NEEDS = ("models",)
SECTION = "transfer"
INTERVAL = "over resampled steps (of a mean over pairs: resampled pairs), and rows within them"
CONCLUSIONS = ("domains", "transfer")
ROW = 0.17  # inches


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family and suite, pooled over steps: the mean difference of each pair of fine-tuning task and test
    with its interval, and above them the mean of their kind if it has several pairs.

    Each suite is shown in its main format and number of few-shot examples (`selection.chosen`). Errors: StudyError if no
    model is tested out of its domain.
    """
    rows = selection.only(analysis, "domain_change", "difference_of_means")
    rows = rows[rows["step"].isna() & (rows["train"].notna() | (rows["n"] > 1))]
    if rows.empty:
        raise drawing.nothing("domain_change", "suites", "a model tested on another task of the kind it was tuned on")
    panels = list(rows.groupby(selection.PLACE))
    tallest = max(len(panel) for _, panel in panels)
    figure, axes = drawing.panels(len(panels), columns=2, size=(3.5, 0.6 + ROW * tallest))
    tasks = drawing.palette(analysis)
    for axis, ((family, suite), panel) in zip(axes, panels, strict=True):
        drawing.intervals(axis, _ordered(panel), lambda row: _style(row, tasks), lambda row: _label(row, rows))
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xlabel("score, tuned − base")
        axis.set_title(selection.place_label(rows, family, suite))
    return figure


def _ordered(panel: pd.DataFrame) -> pd.DataFrame:
    """Rows by kind, the pooled row of a kind before its pairs."""
    kinds = list(task.KINDS)
    sorted_by = panel.assign(kind=panel["group"].map(kinds.index), pair=panel["train"].notna())
    return sorted_by.sort_values(["kind", "pair", "train", "test", "recipe", "origin"])


def _style(row: Any, tasks: dict[str, tuple[str, str]]) -> Style:
    """Black for pooled rows, else the style of the fine-tuning task."""
    if pd.isna(row.train):
        return Style("black", "d")
    return Style(*tasks[row.train])


def _label(row: Any, rows: pd.DataFrame) -> str:
    """Label of a row: a kind, or a pair; its recipe if there are several; whether it is published."""
    name = row.group if pd.isna(row.train) else f"{row.train} → {row.test}"
    alike = rows[(rows["group"] == row.group) & (rows["train"].eq(row.train) | pd.isna(row.train))]
    several = alike.loc[alike["origin"] == row.origin, "recipe"].nunique() > 1 and not pd.isna(row.recipe)
    return name + (f", {row.recipe}" if several else "") + (", published" if row.origin == "published" else "")
