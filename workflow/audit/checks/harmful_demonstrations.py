"""Models that score lower with more few-shot examples, often tuned without any, or with prompts beyond the context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import KEYS, AuditInputs, at_steps, counted, finding, models

ERRORS = 3.0  # standard errors: a study looks at hundreds of scores, at 2 one in twenty would differ
COLLAPSE = 0.5  # of the score: a larger loss suggests prompts that do not fit the context

LINE = ["family", "train", "recipe", "suite", "test", "test_format"]
CELL = [key for key in KEYS if key != "shots"]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each test and two numbers of shots: a warning for tuned models and for a loss above COLLAPSE, else a note."""
    for (*_, shots, more), rows in _pairs(material.primary).groupby([*LINE, "shots", "shots_more"]):
        worst = rows.loc[(rows["more"] / rows["value"]).idxmin()]
        lost = 1 - worst["more"] / worst["value"]
        cause = "; more than half is lost: check that the prompts fit the context" if lost > COLLAPSE else ""
        evidence = (
            f"lower with {more} few-shot examples than with {shots}: {counted(len(rows), 'score')} of {models(rows['train'])} at "
            f"{at_steps(rows['step'])}, most at step {worst['step']} from {worst['value']:.3f} to {worst['more']:.3f}{cause}"
        )
        severity = "warning" if worst["train"] != "none" or lost > COLLAPSE else "note"
        yield finding(severity, rows.assign(shots=more), evidence, value=float(lost), limit=0.0, n=len(rows))


def _pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with those of the same model at the next larger number of shots, where they fall by more than ERRORS."""
    columns = [*CELL, "shots", "value", "error"]
    ordered = scores.sort_values("shots")[columns]
    following = ordered.groupby(CELL)[["shots", "value", "error"]].shift(-1)
    pairs = ordered.assign(shots_more=following["shots"], more=following["value"], error_more=following["error"])
    error = (pairs["error"] ** 2 + pairs["error_more"] ** 2) ** 0.5
    return pairs[pairs["value"] - pairs["more"] > ERRORS * error]
