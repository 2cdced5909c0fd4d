"""Fine-tuned models on other tasks of the same kind, with the untouched base (arXiv 2408.06663, v5 Figures 4 and 11; v1 6
and 10).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from workflow.report import drawing, selection

NEEDS = ("models",)
SECTION = "transfer"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("transfer", "domains")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and test: the base, and every model fine-tuned on a task of the test's kind in
    another domain.

    Each suite is shown in its main format and number of few-shot examples (`selection.chosen`). Errors: StudyError if no
    model is tested out of its domain.
    """
    rows = selection.only(analysis, "performance")
    tuned = selection.related(rows, {"out_of_domain"})
    if tuned.empty:
        raise drawing.nothing("domains", "suites", "a model tested on another task of the kind it was tuned on")
    return drawing.curves(scores, selection.with_bases(tuned, rows), drawing.model_styles(analysis, tuned))
