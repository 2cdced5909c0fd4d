"""Pairs of variants with equal values: whether they count as half right or are left out changes the accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import finding, listed
from workflow.forecasting.pairs import differences
from workflow.forecasting.results import Forecasting

LIMIT = 0.02  # accuracy: a larger difference between tie rules can reverse a comparison


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A note that counts the tied pairs of each column, and a finding on forecasters whose accuracy depends on the tie rule.

    A warning where published numbers are compared with, since they use rule `gt`; else a note, since results of a cohort use
    rule `half`, which does not depend on the order of rows.
    """
    cohort = forecasting.cohort
    ties = {
        name: int((differences(cohort.values([name])[:, 0]) == 0).sum())
        for name in (*cohort.indicators, *cohort.targets)
    }
    pairs = len(cohort.rows) * (len(cohort.rows) - 1) // 2
    counts = [f"{number} in {name}" for name, number in ties.items() if number]
    if counts:
        evidence = f"tied pairs, of {pairs}: {listed(counts, len(counts))}"
        yield finding("note", cohort.rows, evidence, value=max(ties.values()) / pairs, limit=0.0, n=pairs)
    rows = forecasting.forecasts
    rows = rows[(rows["split"] == "every_pair") & (rows["subset"] == "all") & (rows["kind"] != "chance")]
    wide = rows.pivot(index=["forecaster", "source", "target"], columns="ties", values="accuracy").reset_index()
    wide = wide[wide["source"].isna() | (wide["source"] == wide["target"])]
    moved = wide[(wide["gt"] - wide["half"]).abs() > LIMIT]
    if len(moved):
        parts = [
            f"{row.forecaster} on {row.target} {row.gt:.3f} instead of {row.half:.3f}" for row in moved.itertuples()
        ]
        evidence = (
            "tie rule gt counts a tie as a preference for the later row, so accuracies depend on the order of the table: "
            f"{listed(parts)}"
        )
        most = float((moved["gt"] - moved["half"]).abs().max())
        severity = "note" if forecasting.published is None else "warning"
        yield finding(severity, cohort.rows, evidence, value=most, limit=LIMIT, n=len(wide))
