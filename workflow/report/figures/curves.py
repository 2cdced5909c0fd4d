"""Untouched bases and models fine-tuned in the test's domain, along pre-training (arXiv 2408.06663, v5 Figures 7, 9 and 10;
v1 3, 8, 9).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from workflow.report import drawing, selection

NEEDS = ()
SECTION = "tuned"
INTERVAL = "over resampled test rows, and over tuning seeds where there are several"
CONCLUSIONS = ("gains", "turning_points", "declines", "extrapolation")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family, suite and test: the base, and every model fine-tuned on a task of the test's domain or on
    conversations.

    A study without fine-tuning shows its bases. Each suite is shown in its main format and number of few-shot examples
    (`selection.chosen`).
    """
    rows = selection.only(analysis, "performance")
    tuned = selection.related(rows, {"in_domain", "instructed"})
    shown = rows if tuned.empty else selection.with_bases(tuned, rows)
    return drawing.curves(scores, shown, drawing.model_styles(analysis, shown))
