"""Tuned minus base, averaged over the tests of a group at each step (arXiv 2408.06663, section 6.1, Figure 8 and Table 6).

The study's `groups` say which tests of which tunings make a group, such as those learned in pre-training and those
learned in tuning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workflow.comparison import Sample, differences, estimate, pooled
from workflow.statistics import Resampling, p_value

POOLED = ["family", "step", "format", "recipe", "suite", "test_format", "shots"]


def analyse(items: pd.DataFrame, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each group, step and way of testing.

    The estimator is `difference_of_means`, n counts the group's tests; tests are resampled, and rows and seeds within
    each, since the claim is about tests of that sort.
    """
    result = []
    for (name, *keys), samples in _grouped(items, groups).items():
        value, resampled = pooled(samples, how)
        place = {"group": name, **dict(zip(POOLED, keys, strict=True))}
        facts = {"estimator": "difference_of_means", "n": len(samples), "p_value": p_value(resampled)}
        result.append(estimate(place, value, resampled, how, **facts))
    return result


def _grouped(items: pd.DataFrame, groups: Mapping[str, Any]) -> dict[tuple[Any, ...], list[Sample]]:
    """The differences that belong to each group at each step and way of testing."""
    found: dict[tuple[Any, ...], list[Sample]] = defaultdict(list)
    for sample in differences(items):
        for name, group in groups.items():
            if sample.keys["test"] in group.get(sample.keys["train"], []):
                found[(name, *(sample.keys[key] for key in POOLED))].append(sample)
    return found
