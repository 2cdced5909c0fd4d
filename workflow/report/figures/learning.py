"""Untouched bases along pre-training, with tests grouped by when they are learned (arXiv 2408.06663, v5 Figure 6, v1 2).

The group of a test is not set by hand but is a result of the analysis `learning`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.report import drawing, selection
from workflow.report.drawing import Style

NEEDS = ()
SECTION = "base"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("learning",)
GROUPS = ("learned_in_pretraining", "learned_in_both", "learned_in_tuning", "not_learned")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and group: the base on each test of the group, with the test's baseline (the higher
    of chance and majority) as a thin dotted line of the same colour.

    Each suite is shown in its main format and number of few-shot examples (`selection.chosen`). The group of a test is its
    most frequent group in the resamples. Errors: StudyError if no test has a group.
    """
    rows = _grouped(analysis)
    if rows.empty:
        raise drawing.nothing("learning", "models", "models tuned on the tested tasks, and several steps")
    panels = sorted(
        rows.groupby([*selection.PLACE, "group"]), key=lambda panel: (*panel[0][:2], GROUPS.index(panel[0][2]))
    )
    figure, axes = drawing.panels(len(panels), columns=2, size=(3.5, 2.1))
    tasks, dotted = drawing.palette(analysis), None
    for axis, ((family, suite, group), panel) in zip(axes, panels, strict=True):
        drawing.lines(axis, panel, ["test"], lambda test: Style(*tasks[test], label=test))
        for test in panel["test"].unique():
            values = selection.baseline_values(scores, family=family, suite=suite, test=test).values()
            if values:
                axis.axhline(max(values), color=tasks[test][0], linestyle=":", linewidth=0.7)
                dotted = Line2D([], [], color="grey", linestyle=":", linewidth=0.7)
        axis.set_ylabel("accuracy or ROUGE-L")
        axis.set_ylim(0, 1.02)
        axis.set_title(selection.place_label(rows, family, suite, selection.named(group)))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    if dotted:
        figure.legend([dotted], ["higher of chance and majority"], loc="outside lower center")
    drawing.outer(axes)
    return figure


def _grouped(analysis: pd.DataFrame) -> pd.DataFrame:
    """Levels of the bases on tests that have a group, in the column `group`."""
    keys = [*selection.PLACE, "test", *selection.WAY]
    shares = analysis[(analysis["analysis"] == "learning") & (analysis["estimator"] == "share_of_resamples")]
    best = shares[shares["origin"] == "own"].sort_values("value", ascending=False).drop_duplicates(keys)
    rows = selection.only(analysis, "performance")
    return rows[rows["train"] == "none"].drop(columns="group").merge(best[[*keys, "group"]], on=keys)
