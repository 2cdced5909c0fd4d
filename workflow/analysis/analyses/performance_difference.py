"""Fine-tuned minus base, averaged over the tests of a group at each step (arXiv 2408.06663, section 6.1, Figure 8 and Table
6).

The study's `groups` list which tests of which fine-tuning tasks form a group, such as those learned in pre-training and
those learned in fine-tuning. A test that is listed twice counts twice.
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


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """One row for each group, step and way of testing, and for each recipe if a task was fine-tuned with several.

    The estimators are `difference_of_means` and `median_of_differences`, which is robust against a single test; n is the
    number of different tests in the group. The interval is over tests, since the claim is about tests of that sort (with a
    single test it is over rows and seeds). If a test of the group is missing, the value is null and n is the number of
    present tests.
    """
    result = []
    for name, group in groups.items():
        wanted = [(train, test) for train, tests in group.items() for test in tests]
        changes = [change for change in evidence.changes if change.pair in wanted]
        for group_keys, members in places(changes, PLACE):
            result += _rows(
                {"group": name, **group_keys}, wanted, {change.pair: change for change in members}, resampling
            )
    return result


def _rows(
    keys: dict[str, Any], wanted: Sequence[tuple[str, str]], pairs: Pairs, resampling: Resampling
) -> list[dict[str, Any]]:
    """The rows of a group with the same keys."""
    keys = keys | {"n": len(pairs)}
    if set(wanted) - set(pairs):
        return [{**keys, "estimator": "difference_of_means", "value": None}]
    weights = [wanted.count(pair) for pair in pairs]
    return [
        mean_over({**keys, "estimator": name}, list(pairs.values()), resampling, centre, weights)
        for name, centre in ESTIMATORS.items()
    ]
