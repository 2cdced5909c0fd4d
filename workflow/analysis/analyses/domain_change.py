"""Tuned minus base on tests of the kind tuned on, but of other domains (arXiv 2408.06663, Figures 4 and 5, Figure 11).

A task's domain is its own unless its module names another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from workflow import task
from workflow.analysis.evidence import Change, Difference, Estimator, Evidence, Panel, places
from workflow.statistics import Resampling

PLACE = ["family", "format", "suite", "test_format", "shots"]

ESTIMATORS: dict[str, Estimator] = {
    "difference_of_means": lambda changes, bases: changes.mean(axis=-1),
    "median_of_differences": lambda changes, bases: np.median(changes, axis=-1),
}


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each kind of task (the group) and way of testing, in points of the metric.

    Over all pairs of task tuned on and test: one row over all steps (step null) and one at each; the interval is over
    pairs with all their steps, and n counts pairs. For each single pair (train and test given) one row over all steps: the
    interval is over steps and the rows that they share, and n counts steps. A missing cell gives a null value;
    a single pair among pairs, or a single step among steps, has no interval.
    """
    return list(_rows([change for change in evidence.changes if _out_of_domain(change)], how))


def _rows(changes: list[Change], how: Resampling) -> Iterator[dict[str, Any]]:
    for kind in sorted({_kind(change) for change in changes}, key=str):
        for place, own in places([change for change in changes if _kind(change) == kind], PLACE):
            panel = Panel(own, how)
            for row in (*panel.over_pairs(ESTIMATORS), *panel.over_steps(ESTIMATORS)):
                yield {"group": kind, **place, **row}


def _kind(change: Difference) -> str | None:
    return task.kind(change.keys["test"])


def _out_of_domain(change: Change) -> bool:
    """Whether a test is of the kind tuned on and of another domain."""
    train, test = change.keys["train"], change.keys["test"]
    alike = task.known(test) and task.kind(train) == task.kind(test)
    return alike and task.domain(train) != task.domain(test)
