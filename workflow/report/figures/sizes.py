"""Untouched bases of several families on one axis, one panel for each test: compares sizes, batch sizes and runs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from workflow.evaluation import metric_names
from workflow.report import drawing, selection
from workflow.report.drawing import Style
from workflow.study import token_axis

NEEDS = ()
SECTION = "base"
INTERVAL = "over resampled test rows; of imported scores by their standard error, normal approximation"
CONCLUSIONS = ("learning", "turning_points")
WRAPPED = 18  # characters in a line of a title
MOST = 32  # panels that fit on a page


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each suite, test and number of few-shot examples, a line for each family. The axis is logarithmic:
    tokens if they are known for all families shown, else steps.

    Tests that are part of a mean are shown only by the mean. Of more than MOST panels, those with most families and steps
    are shown, and a line states how many are not. Errors: StudyError if no base was tested.
    """
    rows = analysis[
        (analysis["analysis"] == "performance") & (analysis["train"] == "none") & (analysis["origin"] == "own")
    ]
    rows = rows[~rows["test"].isin(metric_names.parts(scores))]
    if rows.empty:
        raise drawing.nothing("sizes", "imports", "a test of untouched bases")
    keys = ["suite", "test", *selection.WAY]
    panels = sorted(rows.groupby(keys), key=lambda panel: (-panel[1]["family"].nunique(), -len(panel[1]), panel[0]))
    order = selection.test_order(rows)
    shown = sorted(panels[:MOST], key=lambda panel: (panel[0][0], order[panel[0][1]], *panel[0][1:]))
    figure, axes = drawing.panels(len(shown))
    axis_of = token_axis.axis(scores, pd.concat([rows_of_panel for _, rows_of_panel in shown]))
    styles = {
        family: Style(*look, label=family)
        for family, look in zip(by_size(rows["family"].unique()), drawing.looks(), strict=False)
    }
    for axis, ((suite, test, _, shots), panel) in zip(axes, shown, strict=True):
        placed = panel.assign(
            place=[axis_of.place(family, step) for family, step in zip(panel["family"], panel["step"], strict=True)]
        )
        for family in by_size(placed["family"].unique()):
            drawing.interval_line(
                axis,
                placed[placed["family"] == family].assign(step=lambda rows: rows["place"]),
                styles[family],
            )
        drawing.log_axis(axis, placed["place"], axis_of.label)
        drawing.baselines(axis, scores, suite=suite, test=test)
        # A long name breaks after one of its underscores.
        name = "\n".join(textwrap.wrap(f"{test}, {shots}-shot".replace("_", "_ "), WRAPPED)).replace("_ ", "_")
        axis.set_title(selection.place_label(rows, "", suite, name) if rows["suite"].nunique() > 1 else name)
        axis.set_ylabel(selection.metric_label(test, scores))
    drawing.outer(axes)
    drawing.legend(figure, axes)
    if len(panels) > MOST:
        figure.suptitle(
            f"{len(panels) - MOST} further tests and numbers of demonstrations are in the table analysis", fontsize=7
        )
    return figure


def by_size(families: Iterable[str]) -> list[str]:
    """Families ordered by the sizes in their names, such as 70m and 1.4b; those without one last."""

    def parameters(name: str) -> tuple[float, str]:
        match = re.search(r"(?<![a-z0-9.])([0-9]+(?:\.[0-9]+)?)([mb])(?![a-z0-9])", name)
        return (float(match[1]) * {"m": 1e6, "b": 1e9}[match[2]] if match else float("inf"), name)

    return sorted(families, key=parameters)
