"""Pairs of variants with equal targets, indicators or fields, which each tie rule counts in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.audit.inputs import finding, listed
from workflow.forecasting.pairs import differences
from workflow.forecasting.results import Forecasting

LIMIT = 0.02  # accuracy: a difference between tie rules that is larger can turn a comparison round


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A note that counts tied pairs of each column, and a finding for forecasters that rule `gt` flatters or harms.

    It is a warning where published numbers stand beside the cohort's, for they go by such a rule; else a note, since all that
    is shown of a cohort goes by rule `half`, which knows no order.
    """
    found = forecasting.cohort
    ties = {
        name: int((differences(found.values([name])[:, 0]) == 0).sum()) for name in (*found.indicators, *found.targets)
    }
    pairs = len(found.rows) * (len(found.rows) - 1) // 2
    counts = [f"{number} in {name}" for name, number in ties.items() if number]
    if counts:
        evidence = f"of {pairs} pairs are tied: {listed(counts, len(counts))}"
        yield finding("note", found.rows, evidence, value=max(ties.values()) / pairs, limit=0.0, n=pairs)
    rows = forecasting.forecasts
    rows = rows[(rows["split"] == "every_pair") & (rows["subset"] == "all") & (rows["kind"] != "chance")]
    wide = rows.pivot(index=["forecaster", "source", "target"], columns="ties", values="accuracy").reset_index()
    wide = wide[wide["source"].isna() | (wide["source"] == wide["target"])]
    moved = wide[(wide["gt"] - wide["half"]).abs() > LIMIT]
    if len(moved):
        parts = [f"{row.forecaster} on {row.target} {row.gt:.3f} for {row.half:.3f}" for row in moved.itertuples()]
        evidence = (
            "rule gt counts a tie as a preference for the later row, so the order of the table decides: it gives "
            f"{listed(parts)}"
        )
        most = float((moved["gt"] - moved["half"]).abs().max())
        severity = "note" if forecasting.published is None else "warning"
        yield finding(severity, found.rows, evidence, value=most, limit=LIMIT, n=len(wide))
