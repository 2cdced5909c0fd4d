"""Ways of tuning against each other on the same bases: recipe with recipe, and format with format at one recipe.

As in full tuning against LoRA. Both models of a pair are tuned from one base on one task and tested in the same way; of two
formats each model is tested in the one that it was tuned in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow.analysis.analyses.learning import in_domain
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level, estimate, mean_over
from workflow.statistics import Resampling

VARIED = {"recipe": ("recipe",), "format": ("format", "test_format")}


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each two recipes, and each two formats of one recipe, in the group `<one>_minus_<other>`; what is varied is null.

    - `difference_of_means` of each pair of models on each test: compared row by row where rows are known, n counts rows. The
      luck of both tunings is in the interval where it is known.
    - `difference_of_means` without train and test: the mean over tests of the domain tuned on, at each step; the interval is over
      tests, and n counts them.
    """
    tuned = [level for level in evidence.levels if level.keys["recipe"] != "none"]
    tuned = [level for level in tuned if level.keys["format"] == level.keys["test_format"]]
    return [row for varied in VARIED for row in _rows(varied, tuned, how)]


def _rows(varied: str, levels: Sequence[Level], how: Resampling) -> Iterator[dict[str, Any]]:
    means: dict[tuple[Any, ...], list[Difference]] = {}
    for group, pair in _pairs(varied, levels):
        keys = pair.keys | dict.fromkeys(VARIED[varied]) | {"group": group}
        yield estimate(keys, pair, how.level, estimator="difference_of_means", n=pair.n)
        if in_domain(pair):
            pooled = keys | {"train": None, "test": None}
            means.setdefault(tuple(pooled.items()), []).append(pair)
    for place, own in means.items():
        yield mean_over({**dict(place), "estimator": "difference_of_means", "n": len(own)}, own, how)


def _pairs(varied: str, levels: Sequence[Level]) -> Iterator[tuple[str, Difference]]:
    """Levels that differ in what is varied and in nothing else, the first in alphabetical order first."""
    places: dict[tuple[Any, ...], list[Level]] = {}
    for level in levels:
        places.setdefault(tuple(level.keys[key] for key in PAIR_KEYS if key not in VARIED[varied]), []).append(level)
    for own in places.values():
        for one, other in itertools.combinations(sorted(own, key=lambda level: level.keys[varied]), 2):
            pair = Difference(one, other)
            if pair.aligned:
                yield f"{one.keys[varied]}_minus_{other.keys[varied]}", pair
