"""Fine-tuned minus base, averaged over each group of tests, along pre-training (arXiv 2408.06663, v5 Figure 8, v1 4; Table
6).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from workflow.report import drawing, selection
from workflow.report.drawing import LINES, Style

NEEDS = ("groups",)
SECTION = "tuned"
INTERVAL = "over resampled tests of the group, and rows within them"
CONCLUSIONS = ("groups",)


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family and suite; a line for each group, and for each recipe if there are several.

    Each suite is shown in its main format and number of few-shot examples (`selection.chosen`). A step without one of the
    group's tests has no value, which leaves a gap in the line. Errors: StudyError if no model of a group is tested in the
    format of its fine-tuning.
    """
    rows = selection.only(analysis, "performance_difference", "difference_of_means")
    if rows.empty:
        raise drawing.nothing(
            "differences", "groups", "a group with a task that is tuned on, tested in tuning's format"
        )
    panels = list(rows.groupby(selection.PLACE))
    figure, axes = drawing.panels(len(panels), columns=2, size=(3.5, 2.4))
    looks = dict(zip(sorted(rows["group"].unique()), drawing.looks(), strict=False))
    for axis, ((family, suite), panel) in zip(axes, panels, strict=True):
        recipes = sorted(panel["recipe"].dropna().unique())

        def style(group: str, recipe: str | None, recipes: list[str] = recipes) -> Style:
            index = recipes.index(recipe) if recipe in recipes else 0
            label = selection.named(group) + (f", {recipe}" if len(recipes) > 1 and recipe in recipes else "")
            colour, marker = looks[group]
            return Style(colour, marker, LINES[index % len(LINES)], label)

        drawing.lines(axis, panel, ["group", "recipe"], style)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_ylabel("score, tuned − base")
        axis.set_title(selection.place_label(rows, family, suite))
    drawing.outer(axes)
    drawing.legend(figure, axes)
    return figure
