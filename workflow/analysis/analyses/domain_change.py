"""Fine-tuned minus base on tests of the same kind in other domains (arXiv 2408.06663, Figures 4 and 5, Figure 11).

Each task is a domain of its own unless its module names another task's domain.
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


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each kind of task (the group) and way of testing, in points of the metric.

    Over all pairs of fine-tuning task and test: one row over all steps (step null) and one at each step. The interval is
    over pairs with all their steps, and n is the number of pairs. For each pair (train and test given): one row over all
    steps. The interval is over steps and the rows that they share, and n is the number of steps. If a cell is missing, the
    value is null; with a single pair, or a single step, there is no interval.
    """
    return list(_rows([change for change in evidence.changes if _out_of_domain(change)], resampling))


def _rows(changes: list[Change], resampling: Resampling) -> Iterator[dict[str, Any]]:
    for kind in sorted({_kind(change) for change in changes}, key=str):
        for group_keys, members in places([change for change in changes if _kind(change) == kind], PLACE):
            panel = Panel(members, resampling)
            for row in (*panel.over_pairs(ESTIMATORS), *panel.over_steps(ESTIMATORS)):
                yield {"group": kind, **group_keys, **row}


def _kind(change: Difference) -> str | None:
    return task.kind(change.keys["test"])


def _out_of_domain(change: Change) -> bool:
    """Whether a test is of the kind of the fine-tuning task but in another domain."""
    train, test = change.keys["train"], change.keys["test"]
    return task.known(test) and task.alike(train, test) and not task.in_domain(train, test)
