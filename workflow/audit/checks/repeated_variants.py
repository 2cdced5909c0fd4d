"""Rows of a table of variants with the same numbers, so that one model stands for several bases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from workflow.audit.inputs import finding, listed
from workflow.forecasting.cohorts import NEAR
from workflow.forecasting.results import Forecasting


def check_cohort(forecasting: Forecasting) -> Iterator[dict[str, Any]]:
    """A finding for each set of bases with nearly equal indicators and targets: an error if exactly equal, else a warning."""
    cohort = forecasting.cohort
    columns = [*cohort.indicators, *cohort.targets]
    for model in np.unique(cohort.twins):
        same = cohort.rows[cohort.twins == model]
        if len(same) > 1:
            exact = (same[columns].nunique() == 1).all()
            fields = [name for name in cohort.fields if same[name].nunique() > 1]
            configs = f"though they differ in {listed(fields)}" if fields else "and the same config"
            evidence = (
                f"bases {listed(same[cohort.key])} have {'the same' if exact else 'nearly the same'} {len(columns)} "
                f"indicators and targets, {configs}: splits and intervals count them as one model; one of them is "
                "probably mislabelled"
            )
            severity = "error" if exact else "warning"
            yield finding(severity, same, evidence, value=float(len(same)), limit=NEAR, n=len(cohort.rows))
