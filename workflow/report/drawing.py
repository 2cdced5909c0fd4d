"""What figures share: colours and markers, axes of steps, panels, one legend.

Figures are made without pyplot, which keeps global state. Every figure reads analysis rows in the columns of
`tables.ANALYSIS` with `analysis` and `origin` (see `selection.overlaid`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from workflow.errors import StudyError
from workflow.report import selection
from workflow.study import token_axis

MARKERS = "sD^vPX*"
LINES = ("-", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
BASELINES = {"chance": ":", "majority": "--"}
PANEL = (1.75, 1.55)  # inches
WIDTH = 7.0  # inches, of the text
TOUCHING = 0.02  # share of a panel's width within which markers touch, however much nearer they are


@dataclass(frozen=True)
class Style:
    """Style of a line: colour, marker, dashes, label."""

    colour: str
    marker: str
    line: Any = "-"
    label: str = ""


BASE = Style("black", "o", label="untouched base")
PUBLISHED = Style("grey", "o", label="published")


# How things look


def palette(analysis: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each task of a study, the same in all figures: fine-tuning tasks first, then by kind and
    name.
    """
    tuned = selection.tuned_on(analysis)
    tasks = tuned | set(analysis["test"].dropna())
    order = sorted(tasks, key=lambda name: (name not in tuned, selection.kind_place(name), name))
    return dict(zip(order, looks(), strict=False))


def looks() -> Iterator[tuple[str, str]]:
    """Colours of the style's cycle with markers. Their cycles have different lengths, so that few pairs repeat."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    for index in range(len(cycle) * len(MARKERS)):
        yield cycle[index % len(cycle)], MARKERS[index % len(MARKERS)]


def model_styles(analysis: pd.DataFrame, shown: pd.DataFrame) -> dict[tuple[str, str], Style]:
    """Style of each model, (train, recipe): colour and marker of its task, and a line style for each recipe of that task.

    The label names the recipe if the rows have several recipes of the task.
    """
    tasks = palette(analysis)
    styles = {("none", "none"): BASE}
    models = analysis[["train", "recipe"]].dropna().drop_duplicates()
    recipes_of_task = shown[shown["origin"] == "own"].groupby("train")["recipe"].nunique()
    for train, recipes in models[models["train"] != "none"].groupby("train")["recipe"]:
        for index, recipe in enumerate(sorted(recipes)):
            label = f"tuned on {train}" + (f", {recipe}" if recipes_of_task.get(train, 0) > 1 else "")
            styles[train, recipe] = Style(*tasks[train], LINES[index % len(LINES)], label)
    return styles


# Parts of figures


def panels(count: int, columns: int = 4, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """A figure with a number of panels in rows, each of a size in inches."""
    columns = min(columns, count)
    height = math.ceil(count / columns)
    figure = Figure(figsize=(max(WIDTH / 2, columns * size[0]), 0.5 + height * size[1]), layout="constrained")
    axes = list(figure.subplots(height, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def lines(axis: Axes, rows: pd.DataFrame, keys: Sequence[str], style: Callable[..., Style]) -> None:
    """Draw a line along the steps for each combination of keys and origin. style: function from their values to a Style."""
    for (origin, *group_keys), line in rows.groupby(["origin", *keys], sort=False, dropna=False):
        interval_line(axis, line, style(*group_keys), published=origin == "published")
    step_axis(axis, rows["step"])


def interval_line(axis: Axes, line: pd.DataFrame, style: Style, published: bool = False) -> None:
    """Draw values along the steps with their interval as a band.

    line: columns step, value, low, high; published: dashed, with hollow markers.
    """
    line = line.sort_values("step")
    steps = line["step"].astype(float)
    drawn = replace(style, line="--", label=PUBLISHED.label) if published else style
    face: dict[str, Any] = {"markerfacecolor": "white"} if published else {}
    axis.plot(
        steps, line["value"], color=drawn.colour, marker=drawn.marker, linestyle=drawn.line, label=drawn.label, **face
    )
    axis.fill_between(steps, line["low"], line["high"], color=drawn.colour, alpha=0.15, linewidth=0)


def step_axis(axis: Axes, steps: Iterable[int]) -> None:
    """Scale the axis of steps: linear, square root, or logarithmic above the smallest positive step.

    The scale that spreads the steps most evenly is chosen (largest product of the gaps between neighbours).
    """
    ticks = np.unique(np.array(list(steps), dtype=float))
    scale = step_scale(ticks)
    if scale == "log":
        axis.set_xscale("symlog", linthresh=ticks[ticks > 0].min(), linscale=0.5)
    elif scale == "root":
        axis.set_xscale("function", functions=(_root, lambda position: np.sign(position) * position**2))
        axis.set_xticks([0, *(float(f"{ticks.max() * third**2 / 9:.0e}") for third in (1, 2, 3))])
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if scale != "log":
        axis.xaxis.set_major_formatter(FuncFormatter(_number))
    axis.set_xlabel("pre-training step")


def log_axis(axis: Axes, places: Iterable[float], label: str) -> None:
    """Logarithmic axis of steps or tokens from the smallest positive one, with space for 0 before it."""
    ticks = np.unique(np.array(list(places), dtype=float))
    if (ticks > 0).any():
        smallest = ticks[ticks > 0].min()
        axis.set_xscale("symlog", linthresh=smallest, linscale=0.5)
        decades = np.arange(np.ceil(np.log10(smallest)), np.floor(np.log10(ticks.max())) + 1)
        shown = decades[:: max(1, math.ceil(len(decades) / 3))]
        axis.set_xticks([*([0.0] if ticks[0] == 0 else []), *10.0**shown])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda position, _: token_axis.amount(position)))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(label)


def step_scale(steps: np.ndarray) -> str:
    """The scale that spreads sorted, distinct steps most evenly: `linear`, `root` or `log`."""
    if len(steps) < 3:
        return "linear"
    smallest = steps[steps > 0].min()
    places = {"linear": steps, "root": _root(steps), "log": np.log1p(steps / smallest)}
    gaps = {name: np.diff(ticks) / (ticks[-1] - ticks[0]) for name, ticks in places.items()}
    spread = {name: np.log(np.maximum(ticks, TOUCHING)).sum() for name, ticks in gaps.items()}
    return max(spread, key=lambda name: spread[name])


def _root(steps: np.ndarray) -> np.ndarray:
    """Signed square root, since the margin of an axis can be negative."""
    return np.sign(steps) * np.sqrt(np.abs(steps))


def _number(step: float, digits: int) -> str:
    """Label of a tick, in thousands if it is long."""
    return f"{step / 1000:g}k" if abs(step) >= 10_000 else f"{step:g}"


def outer(axes: Sequence[Axes]) -> None:
    """Keep axis labels only at the bottom of each column of panels."""
    spots: dict[Axes, Any] = {axis: axis.get_subplotspec() for axis in axes}
    for axis, spot in spots.items():
        if any(o.colspan.start == spot.colspan.start and o.rowspan.start > spot.rowspan.start for o in spots.values()):
            axis.set_xlabel("")


def baselines(axis: Axes, scores: pd.DataFrame, **where: Any) -> None:
    """Draw horizontal lines at chance and at the majority class of a test, if it has them."""
    for metric, value in selection.baseline_values(scores, **where).items():
        axis.axhline(value, color="grey", linestyle=BASELINES[metric], linewidth=0.8, label=metric)


def curves(scores: pd.DataFrame, rows: pd.DataFrame, styles: Mapping[tuple[str, str], Style]) -> Figure:
    """Draw one panel for each family, suite and test: a line for each model along the steps, and the test's baselines.

    rows: of the analysis `performance`, each model once at each step. Accuracies share one scale, ROUGE-L has another.
    """
    order = selection.test_order(rows)
    rows_of_panels = sorted(
        rows.groupby([*selection.PLACE, "test"]), key=lambda panel: (*panel[0][:2], order[panel[0][2]])
    )
    figure, axes = panels(len(rows_of_panels))
    labels = {test: selection.metric_label(test, scores) for test in rows["test"].unique()}
    tops = rows.groupby(rows["test"].map(labels))[["value", "high"]].max().max(axis=1)
    for axis, ((family, suite, test), panel) in zip(axes, rows_of_panels, strict=True):
        metric = labels[test]
        lines(axis, panel, ["train", "recipe"], lambda *model: styles[model])
        baselines(axis, scores, family=family, suite=suite, test=test)
        axis.set_title(selection.place_label(rows, family, suite, test))
        axis.set_ylabel(metric)
        axis.set_ylim(0, 1.02 if metric == "accuracy" else 1.08 * tops[metric])
    outer(axes)
    legend(figure, axes)
    return figure


def intervals(axis: Axes, rows: pd.DataFrame, style: Callable[[Any], Style], label: Callable[[Any], str]) -> None:
    """Draw one horizontal interval for each row, the first on top.

    style, label: functions of a row as a tuple; rows with origin `published` are hollow.
    """
    for index, row in enumerate(rows.itertuples()):
        drawn, published = style(row), row.origin == "published"
        face = "white" if published else drawn.colour
        axis.plot([row.low, row.high], [index, index], color=drawn.colour, linestyle="--" if published else "-")
        axis.plot(row.value, index, color=drawn.colour, marker=drawn.marker, markerfacecolor=face, label=drawn.label)
    axis.set_yticks(range(len(rows)), [label(row) for row in rows.itertuples()])
    axis.set_ylim(len(rows) - 0.5, -0.5)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend below all panels: each label once, baselines last, published values in grey."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if PUBLISHED.label in entries:
        look: dict[str, Any] = {
            "color": PUBLISHED.colour,
            "marker": PUBLISHED.marker,
            "markerfacecolor": "white",
            "linestyle": "--",
        }
        entries[PUBLISHED.label] = Line2D([], [], **look)
    if entries:
        widest = 0.5 + 0.055 * max(len(label) for label in entries)  # inches, of handle and text
        columns = max(1, min(4, len(entries), int(figure.get_figwidth() / widest)))
        labels = sorted(entries, key=lambda label: (label in BASELINES, label == PUBLISHED.label))
        handles = [entries[label] for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def nothing(figure: str, key: str, wanted: str) -> StudyError:
    """The error of a figure without any row to draw. It names the config key that would add some."""
    return StudyError(f"config.yaml: {key}: figure '{figure}' needs {wanted}; found none")
