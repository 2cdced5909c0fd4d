"""Tuned models on tasks of other kinds, beside the base (arXiv 2408.06663, v5 Figures 12 and 13; v1 11 and 12)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from workflow.report import drawing, selection

NEEDS = ("models",)
SECTION = "transfer"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("transfer", "ratios")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and test that is itself tuned on: the base, and every model tuned on another kind.

    Each suite is shown in the main way it tests (`selection.chosen`).
    Errors: StudyError when no model is tested on a task of another kind that is tuned on.
    """
    rows = selection.only(analysis, "performance")
    tuned = selection.related(rows[rows["test"].isin(rows["train"].unique())], {"cross_task"})
    if tuned.empty:
        raise drawing.nothing(
            "cross_task", "suites", "a model tested on a task of another kind that is tuned on as well"
        )
    return drawing.curves(scores, selection.with_bases(tuned, rows), drawing.model_styles(analysis, tuned))
