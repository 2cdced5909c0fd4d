"""Tuned minus base, averaged over the tests of a group at each step (arXiv 2408.06663, section 6.1, Figure 8 and Table 6).

The study's `groups` say which tests of which tunings make a group, such as those learned in pre-training and those
learned in tuning. A test that is listed twice counts twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow import statistics
from workflow.comparison import Change, Evidence, estimate, pooled
from workflow.statistics import Resampling, p_value

PLACE = ["family", "step", "format", "suite", "test_format", "shots"]

Pairs = dict[tuple[str, str], Change]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each group, step and way of testing; and each recipe, where a task was tuned on by several.

    The estimators are `difference_of_means` and, robust against a single test, `median_of_differences`; n counts the
    group's tests, each once. Tests are resampled, and rows and seeds within each, since the claim is about
    tests of that sort. Where a test of the group is missing, the value is null and n counts those that are there.
    """
    result = []
    for name, group in groups.items():
        wanted = [(train, test) for train, tests in group.items() for test in tests]
        changes = [change for change in evidence.changes if _pair(change) in wanted]
        for place, recipe, found in _places(changes):
            keys = {"group": name, **dict(zip(PLACE, place, strict=True)), "recipe": recipe}
            result += _rows(keys, wanted, found, how)
    return result


def _pair(change: Change) -> tuple[str, str]:
    return change.keys["train"], change.keys["test"]


def _places(changes: Sequence[Change]) -> Iterator[tuple[tuple[Any, ...], str | None, Pairs]]:
    """Changes by step and way of testing, and by recipe: None where each task was tuned on by one recipe, not all by the same."""

    def place(change: Change) -> tuple[Any, ...]:
        return tuple(change.keys[key] for key in PLACE)

    for keys, grouped in itertools.groupby(sorted(changes, key=place), key=place):
        there = list(grouped)
        recipes: dict[str, set[str]] = {}
        for change in there:
            recipes.setdefault(change.keys["train"], set()).add(change.keys["recipe"])
        varied = sorted({name for names in recipes.values() if len(names) > 1 for name in names})
        single = {name for names in recipes.values() for name in names}
        for recipe in varied or [single.pop() if len(single) == 1 else None]:
            own = [c for c in there if c.keys["recipe"] == recipe or len(recipes[c.keys["train"]]) == 1]
            yield keys, recipe, {_pair(change): change for change in own}


def _rows(
    keys: dict[str, Any], wanted: Sequence[tuple[str, str]], found: Pairs, how: Resampling
) -> list[dict[str, Any]]:
    """The rows of a group at one place."""
    keys = keys | {"n": len(found)}
    if set(wanted) - set(found):
        return [{**keys, "estimator": "difference_of_means", "value": None}]
    weights = [wanted.count(pair) for pair in found]
    mean, means = pooled(list(found.values()), how, statistics.weighted_mean, weights)
    median, medians = pooled(list(found.values()), how, statistics.weighted_median, weights)
    return [
        estimate(keys, mean, means, how, estimator="difference_of_means", p_value=p_value(means)),
        estimate(keys, median, medians, how, estimator="median_of_differences", p_value=p_value(medians)),
    ]
