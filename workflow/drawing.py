"""What figures share: the same colour and marker for the same thing, steps to scale, intervals, baselines, one legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workflow import task
from workflow.metrics import PRIMARY

BASE = ("black", "o")
MARKERS = "sD^vPX*"
BASELINES = {"chance": ":", "majority": "--"}
SPREAD = 30  # steps whose largest is this many times the smallest positive one are drawn on a log axis


def colours(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour of the style's cycle and a marker for each name; both repeat out of step when there are more names."""
    cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    return {name: (cycle[index % len(cycle)], MARKERS[index % len(MARKERS)]) for index, name in enumerate(names)}


def interval_line(axis: Axes, line: pd.DataFrame, label: str, colour: str, marker: str) -> None:
    """Values along the steps with their interval as a band; line: columns step, value, low, high, sorted by step."""
    steps = line["step"].astype(float)
    axis.plot(steps, line["value"], color=colour, marker=marker, label=label)
    axis.fill_between(steps, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)


def step_axis(axis: Axes, steps: Iterable[int]) -> None:
    """Steps to scale: linear, or logarithmic above the smallest positive step where they spread too far for that."""
    positive = [int(step) for step in steps if step > 0]
    if positive and max(positive) >= SPREAD * min(positive):
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_xlabel("pre-training step")


def baselines(axis: Axes, scores: pd.DataFrame, **place: Any) -> None:
    """Horizontal lines at chance and at the majority class of a test, where the test has them."""
    rows = scores[(scores[list(place)] == pd.Series(place)).all(axis=1)]
    for metric, style in BASELINES.items():
        values = rows.loc[rows["metric"] == metric, "value"]
        if len(values):
            axis.axhline(values.iloc[0], color="grey", linestyle=style, linewidth=0.8, label=metric)


def metric_label(test: str) -> str:
    """Name of a test's primary metric for an axis."""
    return {"accuracy": "accuracy", "rouge_l": "ROUGE-L"}[PRIMARY[task.KINDS[task.load(test).kind].method]]


def place_label(rows: pd.DataFrame, family: str, suite: str, test: str = "") -> str:
    """Title of a panel: its test, and its suite and family where the figure has several of them."""
    parts = [test, suite if rows["suite"].nunique() > 1 else "", family if rows["family"].nunique() > 1 else ""]
    return ", ".join(part for part in parts if part)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels below them, each label once."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(4, len(entries)))
