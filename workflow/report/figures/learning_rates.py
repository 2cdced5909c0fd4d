"""Learning rates that were chosen for each base along pre-training (recipes whose `search` is per base)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow.report import drawing
from workflow.report.drawing import Style

NEEDS = ("own_rates",)
READS = ("own_choices",)
SECTION = "tuned"
INTERVAL = "nothing: a chosen rate has no interval; the table `own_choices` has those of the validation losses"
CONCLUSIONS = ("learning_rates",)
PANEL = ["family", "train"]


def draw(scores: pd.DataFrame, analysis: pd.DataFrame, choices: pd.DataFrame) -> Figure:
    """One panel for each family and training task: the learning rate with the lowest validation loss at each step. Grey dots:
    the rates that were tried there; grey crosses: those at which fine-tuning diverged.

    choices: the table `own_choices`.
    """
    panels = list(choices.groupby(PANEL, sort=False))
    looks = dict(zip(choices["recipe"].unique(), drawing.looks(), strict=False))
    figure, axes = drawing.panels(len(panels))
    for axis, ((family, train), rows) in zip(axes, panels, strict=True):
        _tried(axis, rows)
        for (recipe, _), chosen in rows[rows["chosen"]].groupby(["recipe", "format"], sort=False):
            line = chosen.assign(value=chosen["learning_rate"], low=float("nan"), high=float("nan"))
            colour, marker = looks[recipe]
            drawing.interval_line(axis, line, Style(colour, marker, label=str(recipe)))
        drawing.step_axis(axis, rows["step"])
        axis.set_yscale("log")
        axis.set_ylabel("learning rate")
        axis.set_title(f"{train} ({family})" if choices["family"].nunique() > 1 else train)
    drawing.legend(figure, axes)
    return figure


def _tried(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw a dot for each rate that was tried, a cross for each that diverged."""
    for diverged, marker, label in ((False, ".", "tried"), (True, "x", "diverged")):
        tried = rows[rows["diverged"] == diverged]
        if len(tried):
            axis.scatter(
                tried["step"].astype(float), tried["learning_rate"], s=8, c="silver", marker=marker, label=label
            )
