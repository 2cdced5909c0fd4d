"""Base and tuned models on each test along pre-training (arXiv 2408.06663, Figures 6, 7, 9 and 10), steps drawn to scale."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow import drawing, task

COLUMNS = 4
PANEL = (1.75, 1.55)  # inches
SHARE = 1.02  # accuracy and ROUGE-L are shares: one scale for all panels, so that they can be compared


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and test: the base, and every model tuned on a task of the test's kind.

    Models are tested in the format they were tuned in, with the fewest demonstrations that the study has.
    """
    rows = _chosen(analysis)
    panels = list(rows.groupby(["family", "suite", "test"], sort=False))
    height = math.ceil(len(panels) / COLUMNS)
    figure, grid = plt.subplots(
        height, COLUMNS, figsize=(COLUMNS * PANEL[0], 0.5 + height * PANEL[1]), squeeze=False, layout="constrained"
    )
    colours = drawing.colours(sorted(set(rows["train"]) - {"none"}))
    for axis, ((family, suite, test), panel) in zip(grid.flat, panels, strict=False):
        _panel(axis, panel, colours)
        drawing.baselines(axis, scores, family=family, suite=suite, test=test)
        axis.set_title(drawing.place_label(rows, family, suite, test))
        axis.set_ylabel(drawing.metric_label(test))
        axis.set_ylim(0, SHARE)
    for axis in grid.flat[len(panels) :]:
        axis.set_visible(False)
    drawing.legend(figure, grid.flat)
    return figure


def _chosen(analysis: pd.DataFrame) -> pd.DataFrame:
    """Levels of the untouched bases and of the models tuned on a task of the same kind, tested in their own format."""
    rows = analysis[analysis["analysis"] == "performance"]
    rows = rows[rows["shots"] == rows["shots"].min()]
    kinds = {name: task.load(name).kind for name in {*rows["test"], *rows["train"]} - {"none"}}
    tuned = rows[(rows["format"] == rows["test_format"]) & (rows["train"].map(kinds) == rows["test"].map(kinds))]
    formats = set(tuned["format"]) or set(rows["test_format"])
    base = rows[(rows["train"] == "none") & rows["test_format"].isin(formats)]
    return pd.concat([base, tuned]).sort_values(["family", "suite", "test", "train", "step"])


def _panel(axis: Axes, panel: pd.DataFrame, colours: dict[str, tuple[str, str]]) -> None:
    """Lines with intervals, one for each model along the steps."""
    for (train, _, _), line in panel.groupby(["train", "recipe", "test_format"], sort=False):
        colour, marker = colours.get(train, drawing.BASE)
        label = "untouched base" if train == "none" else f"tuned on {train}"
        drawing.interval_line(axis, line, label, colour, marker)
    drawing.step_axis(axis, panel["step"])
