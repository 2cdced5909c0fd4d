"""Tuned minus base, averaged over each group of tests, along pre-training (arXiv 2408.06663, Figure 8 and Table 6)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from workflow import drawing
from workflow.errors import StudyError


def draw(scores: pd.DataFrame, analysis: pd.DataFrame) -> Figure:
    """One panel for each family and suite; a line for each group, tested in tuning's format with the fewest demonstrations."""
    rows = analysis[
        (analysis["analysis"] == "performance_difference") & (analysis["format"] == analysis["test_format"])
    ]
    rows = rows[rows["shots"] == rows["shots"].min()]
    if rows.empty:
        raise StudyError(
            "config.yaml: groups: figure 'differences' needs a group with a tuned task; allowed: task -> tests"
        )
    panels = list(rows.groupby(["family", "suite"], sort=True))
    figure, grid = plt.subplots(1, len(panels), figsize=(3.5 * len(panels), 2.8), squeeze=False, layout="constrained")
    colours = drawing.colours(sorted(rows["group"].unique()))
    for axis, ((family, suite), panel) in zip(grid.flat, panels, strict=True):
        for (group, _, _), line in panel.groupby(["group", "recipe", "format"]):
            colour, marker = colours[group]
            drawing.interval_line(axis, line.sort_values("step"), group.replace("_", " "), colour, marker)
        axis.axhline(0, color="black", linewidth=0.6)
        drawing.step_axis(axis, panel["step"])
        axis.set_ylabel("score, tuned − base")
        axis.set_title(drawing.place_label(rows, family, suite))
    drawing.legend(figure, grid.flat)
    return figure
