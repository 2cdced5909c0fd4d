"""Bases, and models fine-tuned on the test's task, in each prompt format (arXiv 2408.06663, v5 Figures 2, 3, 14; v1 5, 13)."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow import task
from workflow.data.prompts import FORMATS
from workflow.report import drawing, selection
from workflow.report.drawing import Style

NEEDS = ("formats",)
SECTION = "formats"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("formats",)
BASE_LINE = (0, (1, 1.5))


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite, test and recipe: a solid line for the fine-tuned model and a dotted one for the base
    in each format of the test.

    Published values are those of fine-tuned models. Models are those fine-tuned in the most frequent format, with the most
    frequent number of few-shot examples (`selection.chosen`). Errors: StudyError if no task is tested in several formats by
    a model fine-tuned on it.
    """
    shown = _shown(analysis[analysis["analysis"] == "performance"])
    keys = [*selection.PLACE, "test", "recipe"]
    if shown.empty:
        raise drawing.nothing("formats", "suites", "a task that is tuned on and tested in several formats")
    trained_here = shown[(shown["train"] != "none") & (shown["origin"] == "own")]
    panels = list(trained_here.groupby(keys))
    figure, axes = drawing.panels(len(panels))
    for axis, ((family, suite, test, recipe), tuned) in zip(axes, panels, strict=True):
        beside = (shown["train"] == "none") == (shown["origin"] == "own")  # the study's bases, published models
        _panel(axis, pd.concat([tuned, shown[beside & (shown[keys[:3]] == [family, suite, test]).all(axis=1)]]))
        drawing.baselines(axis, scores, family=family, suite=suite, test=test)
        several = trained_here.loc[trained_here["test"] == test, "recipe"].nunique() > 1
        axis.set_title(selection.place_label(shown, family, suite, f"{test}, {recipe}" if several else test))
        axis.set_ylabel(selection.metric_label(test, scores))
        axis.set_ylim(bottom=0)
    drawing.outer(axes)
    drawing.legend(figure, axes)
    return figure


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Models tested in several formats on the task of their fine-tuning, and their bases."""
    main = selection.chosen(rows)
    home = [task.at_home(train, test) for train, test in zip(main["train"], main["test"], strict=True)]
    models = main.loc[home, [*selection.PLACE, "train", "test", "format", "shots"]]
    tuned = rows.merge(models.drop_duplicates(), on=list(models.columns))
    several = tuned.groupby([*selection.PLACE, "test"])["test_format"].transform("nunique") > 1
    tuned = tuned[several]
    places = tuned[[*selection.PLACE, "test", "test_format", "shots"]].drop_duplicates()
    return pd.concat([tuned, rows[rows["train"] == "none"].merge(places, on=list(places.columns))])


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw one model and its base in each format; a format has the same colour and marker in all panels."""
    looks = dict(zip(FORMATS, drawing.looks(), strict=False))

    def style(test_format: str, train: str) -> Style:
        tuned = Style(*looks[test_format], label=f"tuned, {test_format}")
        return replace(tuned, line=BASE_LINE, label=f"base, {test_format}") if train == "none" else tuned

    order = pd.Categorical(rows["test_format"], list(FORMATS), ordered=True)
    ordered = rows.assign(order=order, base=rows["train"] == "none").sort_values(["base", "order"])
    drawing.lines(axis, ordered, ["test_format", "train"], style)
