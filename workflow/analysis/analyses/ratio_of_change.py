"""Change by fine-tuning relative to the base, on tasks of the other class than the fine-tuning task (arXiv 2408.06663,
Equation 1).

Equation 1 divides by the base's score, so that one base near 0 outweighs all other cells: the published mean of -61 %
contains one cell of +491 %. Three robust estimators are computed as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from workflow import task
from workflow.analysis.evidence import Change, Estimator, Evidence, Panel, places
from workflow.statistics import Resampling

PLACE = ["family", "format", "suite", "test_format", "shots"]

# how the fine-tuning task and the test are predicted: among label words, or as free text
GROUPS = {
    ("label", "generate"): "classification_to_generation",
    ("generate", "label"): "generation_to_classification",
}

ESTIMATORS: dict[str, Estimator] = {
    "mean_of_ratios": lambda changes, bases: (changes / bases).mean(axis=-1),
    "median_of_ratios": lambda changes, bases: np.median(changes / bases, axis=-1),
    "ratio_of_means": lambda changes, bases: changes.sum(axis=-1) / bases.sum(axis=-1),
    "difference_of_means": lambda changes, bases: changes.mean(axis=-1),
}


RELATIVE = [name for name in ESTIMATORS if "ratio" in name]


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """One row for each direction, way of testing and estimator, over all steps (step null) and at each step.

    A cell is a step with a pair of fine-tuning task and test. The test is itself a fine-tuning task of the study and has the
    format of the fine-tuning. Transfers within a class are left out, as in the published numbers. All cells have the same
    weight. The interval is over pairs with all their steps; n is the number of pairs. Ratios are shares (-0.61 is a loss of
    61 %), `difference_of_means` is in points of the metric. The value is null if a cell is missing, or if a base of 0 makes
    a ratio infinite; a single pair has no interval.
    """
    trains = {name for level in evidence.levels for name in task.components(level.keys["train"])}
    changes = [change for change in evidence.changes if change.keys["test"] in trains]
    asked_alike = [change for change in changes if change.keys["test_format"] == change.keys["format"]]
    return list(_rows(asked_alike, resampling))


def _rows(changes: list[Change], resampling: Resampling) -> Iterator[dict[str, Any]]:
    for name in GROUPS.values():
        for group_keys, members in places([change for change in changes if direction(*change.pair) == name], PLACE):
            yield from (
                {"group": name, **group_keys, **row}
                for row in Panel(members, resampling, RELATIVE).over_pairs(ESTIMATORS)
            )


def direction(train: str, test: str) -> str | None:
    """The direction of a transfer (a value of GROUPS); None within a class, and for tasks of neither class or of both."""
    methods = {str(task.method(name)) for name in task.components(train)}
    return GROUPS.get((methods.pop(), str(task.method(test)))) if len(methods) == 1 else None
