"""Tuned minus base, averaged over the tests of a group at each step (arXiv 2408.06663, section 6.1, Figure 8 and Table 6).

The study's `groups` say which tests of which tunings make a group, such as those learned in pre-training and those
learned in tuning. A test that is listed twice counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workflow import statistics
from workflow.analysis.evidence import Difference, Evidence, mean_over, places
from workflow.statistics import Resampling

PLACE = ["family", "step", "format", "suite", "test_format", "shots"]

ESTIMATORS = {"difference_of_means": statistics.weighted_mean, "median_of_differences": statistics.weighted_median}

Pairs = dict[tuple[str, str], Difference]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each group, step and way of testing; and each recipe, where a task was tuned on by several.

    The estimators are `difference_of_means` and, robust against a single test, `median_of_differences`; n counts the
    group's tests, each once. The interval is over tests, since the claim is about tests of that sort (of a single
    test it is over rows and seeds). Where a test of the group is missing, the value is null and n counts those that are there.
    """
    result = []
    for name, group in groups.items():
        wanted = [(train, test) for train, tests in group.items() for test in tests]
        changes = [change for change in evidence.changes if change.pair in wanted]
        for place, own in places(changes, PLACE):
            result += _rows({"group": name, **place}, wanted, {change.pair: change for change in own}, how)
    return result


def _rows(
    keys: dict[str, Any], wanted: Sequence[tuple[str, str]], found: Pairs, how: Resampling
) -> list[dict[str, Any]]:
    """The rows of a group at one place."""
    keys = keys | {"n": len(found)}
    if set(wanted) - set(found):
        return [{**keys, "estimator": "difference_of_means", "value": None}]
    weights = [wanted.count(pair) for pair in found]
    return [
        mean_over({**keys, "estimator": name}, list(found.values()), how, centre, weights)
        for name, centre in ESTIMATORS.items()
    ]
