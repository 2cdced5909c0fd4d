"""Turning points of curves along pre-training: bases, fine-tuned models and gains (arXiv 2408.06663, section 6.2).

The paper names such steps by eye. Here they come from the analysis `turning_point`, with intervals, and most curves have
none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from workflow.report import drawing, selection
from workflow.report.drawing import Style

NEEDS = ()
SECTION = "tuned"
INTERVAL = "the steps at which a bend cannot be ruled out, moved outwards to steps of the study"
CONCLUSIONS = ("turning_points",)
ROW = 0.17  # inches
LINE = [*selection.PLACE, "group", "train", "format", "recipe", "test", *selection.WAY, "origin"]
PANELS = ("base", "tuned", "tuned − base")


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """Three panels for each family and suite: the best-fitting bend of the base on each test, of models fine-tuned in the
    test's domain or on conversations, and of their gains over the base. Grey: no turning step is stated, because a
    straight line or a smooth learning curve predicts held-out steps as well, or the bend moves when steps are left out.
    Vertical lines: the first and the last step. Each suite is shown in its main format and number of few-shot examples
    (`selection.chosen`).

    Errors: StudyError if no curve is long enough.
    """
    rows = _shown(analysis)
    if rows.empty:
        raise drawing.nothing("turning_points", "families", "a family with enough steps for a turning point")
    panels = list(rows.groupby([*selection.PLACE, "panel"], sort=True))
    tallest = max(len(panel) for _, panel in panels)
    figure, axes = drawing.panels(len(panels), columns=2, size=(drawing.WIDTH / 2, 0.6 + ROW * tallest))
    styles = drawing.model_styles(analysis, rows)
    for axis, ((family, suite, name), panel) in zip(axes, panels, strict=True):
        drawing.intervals(axis, panel, lambda row: _style(row, styles), _label)
        steps = analysis.loc[(analysis["family"] == family) & (analysis["analysis"] == "performance"), "step"]
        for end in (steps.min(), steps.max()):
            axis.axvline(end, color="lightgrey", linewidth=0.6)
        drawing.step_axis(axis, steps)
        axis.set_title(selection.place_label(rows, family, suite, name))
    drawing.legend(figure, axes)
    return figure


def _shown(analysis: pd.DataFrame) -> pd.DataFrame:
    """Turning points, `named` or not, with their panel, in the order of tests in the panels."""
    turns = selection.only(analysis, "turning_point", "turning_step", "knot")
    named = turns.loc[(turns["estimator"] == "turning_step") & turns["value"].notna(), LINE].drop_duplicates()
    rows = turns[turns["estimator"] == "knot"].merge(named, on=LINE, how="left", indicator="named")
    rows = selection.related(rows.assign(named=rows["named"] == "both"), {"base", "in_domain", "instructed"})
    names = rows["group"].map({"level": "tuned", "gain": "tuned − base"}).where(rows["train"] != "none", "base")
    rows = rows.assign(
        panel=pd.Categorical(names, PANELS, ordered=True), order=rows["test"].map(selection.test_order(rows))
    )
    rows["panel"] = rows["panel"].cat.remove_unused_categories()
    return rows.sort_values(["order", "train", "recipe", "origin"])


def _style(row: Any, styles: dict[tuple[str, str], Style]) -> Style:
    """The style of the model; grey if no turning step is named."""
    style = replace(styles[row.train, row.recipe], label="")
    return style if row.named else Style("silver", style.marker, label="no turning step named")


def _label(row: Any) -> str:
    """The test, after the fine-tuning task if that is another one."""
    name = row.test if row.train in ("none", row.test) else f"{row.train} → {row.test}"
    return name + (", published" if row.origin == "published" else "")
