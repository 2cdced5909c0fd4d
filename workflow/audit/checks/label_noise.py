"""Scores to be forecast whose standard error is as large as the differences between bases."""

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
    """A finding for each target with known test rows: a warning above LIMIT, else a note.

    The noise is binomial, from the test rows alone; another fine-tuning run would differ by more.
    """
    cohort, block = forecasting.cohort, forecasting.block
    first, second = first_second(len(cohort.rows))
    for target, sizes in block["test_rows"].items():
        values = cohort.values([target])[:, 0]
        error = standard_error(values, sizes, block["full_score"])
        apart, likely = np.abs(differences(values)), np.hypot(error[first], error[second])
        share = float((apart < likely).mean())
        known = np.mean([(1 + math.erf(ratio / math.sqrt(2))) / 2 for ratio in apart / np.maximum(likely, 1e-12)])
        evidence = (
            f"{target}: {share:.0%} of {len(apart)} pairs are closer than one standard error of a difference "
            f"({np.median(likely):.2f}, from {sum(sizes)} test rows); if the scores were the true ones, a new draw of as many "
            f"test rows would keep the order of {known:.0%} of the pairs"
        )
        severity = "warning" if share > LIMIT else "note"
        yield finding(severity, cohort.rows, evidence, value=share, limit=LIMIT, n=len(apart))


def standard_error(values: np.ndarray, sizes: list[int], full: float) -> np.ndarray:
    """Standard error of means of accuracies over tests of these sizes, assuming that every accuracy equals the mean."""
    shares = np.clip(values / full, 0, 1)
    return full * np.sqrt(shares * (1 - shares) * sum(1 / size for size in sizes)) / len(sizes)
