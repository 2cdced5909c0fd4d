"""Fine-tuned models on tasks of other kinds, with the untouched base (arXiv 2408.06663, v5 Figures 12 and 13; v1 11 and 12)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from workflow import task
from workflow.report import drawing, selection

NEEDS = ("models",)
SECTION = "transfer"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("transfer", "ratios")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and test that is also a fine-tuning task: the base, and every model fine-tuned on
    another kind of task.

    Each suite is shown in its main format and number of few-shot examples (`selection.chosen`). Errors: StudyError if no
    model is tested on a fine-tuning task of another kind.
    """
    rows = selection.only(analysis, "performance")
    trains = [name for train in rows["train"].unique() for name in task.components(train)]
    tuned = selection.related(rows[rows["test"].isin(trains)], {"cross_task"})
    if tuned.empty:
        raise drawing.nothing(
            "cross_task", "suites", "a model tested on a task of another kind that is tuned on as well"
        )
    return drawing.curves(scores, selection.with_bases(tuned, rows), drawing.model_styles(analysis, tuned))
