"""Compares two ways of fine-tuning the same bases: two recipes, such as full fine-tuning and LoRA, or two formats with one
recipe.

Both models of a pair are fine-tuned from one base on one task and tested in the same way. With two formats, each model is
tested in the format of its fine-tuning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow.analysis.analyses.learning import in_domain
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level, estimate, mean_over
from workflow.statistics import Resampling

VARIED = {"recipe": ("recipe",), "format": ("format", "test_format")}


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each two recipes, and each two formats of one recipe, in the group `<one>_minus_<other>`. The varied key is
    null.

    - `difference_of_means` for each pair of models on each test: compared row by row if rows are known; n is the number of
      rows. The interval includes the variance between seeds of both fine-tunings if it is known.
    - `difference_of_means` without train and test: the mean over tests in the domain of the fine-tuning task, at each step.
      The interval is over tests, and n is their number.
    """
    tuned = [level for level in evidence.levels if level.keys["recipe"] != "none"]
    tuned = [level for level in tuned if level.keys["format"] == level.keys["test_format"]]
    return [row for varied in VARIED for row in _rows(varied, tuned, resampling)]


def _rows(varied: str, levels: Sequence[Level], resampling: Resampling) -> Iterator[dict[str, Any]]:
    means: dict[tuple[Any, ...], list[Difference]] = {}
    for group, pair in _pairs(varied, levels):
        keys = pair.keys | dict.fromkeys(VARIED[varied]) | {"group": group}
        yield estimate(keys, pair, resampling.level, estimator="difference_of_means", n=pair.n)
        if in_domain(pair):
            pooled = keys | {"train": None, "test": None}
            means.setdefault(tuple(pooled.items()), []).append(pair)
    for group_keys, members in means.items():
        yield mean_over(
            {**dict(group_keys), "estimator": "difference_of_means", "n": len(members)}, members, resampling
        )


def _pairs(varied: str, levels: Sequence[Level]) -> Iterator[tuple[str, Difference]]:
    """Pairs of levels that differ only in what is varied, in alphabetical order."""
    places: dict[tuple[Any, ...], list[Level]] = {}
    for level in levels:
        places.setdefault(tuple(level.keys[key] for key in PAIR_KEYS if key not in VARIED[varied]), []).append(level)
    for members in places.values():
        for one, other in itertools.combinations(sorted(members, key=lambda level: level.keys[varied]), 2):
            pair = Difference(one, other)
            if pair.aligned:
                yield f"{one.keys[varied]}_minus_{other.keys[varied]}", pair
