"""What tuning changes on each test at each step: tuned minus base, in points of the test's primary metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.comparison import differences, estimate
from workflow.statistics import Resampling, p_value


def analyse(items: pd.DataFrame, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each tuned model (seeds pooled) and test; rows, and seeds where there are several, are resampled.

    The estimator is `difference_of_means`, n counts rows; base and tuned model are compared row by row.
    """
    return list(_rows(items, how))


def _rows(items: pd.DataFrame, how: Resampling) -> Iterator[dict[str, Any]]:
    for sample in differences(items):
        resampled = sample.resampled(how)
        facts = {"estimator": "difference_of_means", "n": sample.values.shape[1], "p_value": p_value(resampled)}
        yield estimate(sample.keys, float(sample.values.mean()), resampled, how, **facts)
