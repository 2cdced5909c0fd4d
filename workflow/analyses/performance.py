"""Base and tuned models on each test at each step, in the test's primary metric (arXiv 2408.06663, Figures 6, 7 and 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workflow.comparison import estimate, levels
from workflow.statistics import Resampling


def analyse(items: pd.DataFrame, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each model (seeds pooled) and test; rows, and seeds where there are several, are resampled.

    The estimator is `mean`, n counts rows; train `none` is the untouched base.
    """
    return [
        estimate(
            sample.keys,
            float(sample.values.mean()),
            sample.resampled(how),
            how,
            estimator="mean",
            n=sample.values.shape[1],
        )
        for sample in levels(items)
    ]
