"""Targets whose own noise is as large as the differences that forecasters are asked to tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from workflow.audit.inputs import finding
from workflow.forecasting.pairs import differences, first_second
from workflow.forecasting.results import Forecasting

LIMIT = (
    0.25  # share of the pairs: beyond it, no forecaster can reach an accuracy of 0.9 even if it knew the true scores
)


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """One finding for each target whose test rows are known: a warning above LIMIT, a note below.

    The noise is binomial, that of the tests' rows alone; one tuning run more would differ by more.
    """
    found, block = forecasting.cohort, forecasting.block
    first, second = first_second(len(found.rows))
    for target, sizes in block["test_rows"].items():
        values = found.values([target])[:, 0]
        error = standard_error(values, sizes, block["full_score"])
        apart, likely = np.abs(differences(values)), np.hypot(error[first], error[second])
        share = float((apart < likely).mean())
        known = np.mean([(1 + math.erf(ratio / math.sqrt(2))) / 2 for ratio in apart / np.maximum(likely, 1e-12)])
        evidence = (
            f"{target}: {share:.0%} of {len(apart)} pairs are closer than one standard error of a difference "
            f"({np.median(likely):.2f}, from {sum(sizes)} test rows); were the scores true, as many test rows drawn "
            f"anew would put {known:.0%} of the pairs in the same order"
        )
        severity = "warning" if share > LIMIT else "note"
        yield finding(severity, found.rows, evidence, value=share, limit=LIMIT, n=len(apart))


def standard_error(values: np.ndarray, sizes: list[int], full: float) -> np.ndarray:
    """Standard error of plain means of accuracies over tests of some sizes, each taken to be as high as their mean."""
    shares = np.clip(values / full, 0, 1)
    return full * np.sqrt(shares * (1 - shares) * sum(1 / size for size in sizes)) / len(sizes)
