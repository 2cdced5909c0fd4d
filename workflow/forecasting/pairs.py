"""Pairs of bases: is the one that a forecaster prefers the better one after tuning? (arXiv 2504.12491, section 2).

Pairs are those of `first_second`, in the order of the table. A preference is a number for each pair: above 0 for the
first, below 0 for the second, 0 for none; a difference is the target of the first minus that of the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting.cohorts import Cohort
from workflow.statistics import Resampling

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

TIES = ("gt", "strict", "half")
QUINTILES = 5


def first_second(n: int) -> tuple[Places, Places]:
    """Return the indices of both bases in each of the n(n - 1)/2 unordered pairs of n bases."""
    return np.triu_indices(n, k=1)


def differences(values: Values) -> Values:
    """Return first minus second in each pair; values: shape (..., bases)."""
    first, second = first_second(values.shape[-1])
    return values[..., first] - values[..., second]


def credit(preferences: Values, difference: Values, ties: str) -> tuple[Values, Mask]:
    """Return the credit of each preference (0, 0.5 or 1), and which pairs count; preferences: shape (..., pairs).

    gt: right if both or neither say that the first is better; closest to the published rule.
    strict: right if both say the same base is better; a tie in either is wrong.
    half: pairs with equal targets do not count, no preference earns 0.5 (Harrell's concordance index).
    """
    counted = np.ones(len(difference), dtype=bool)
    if ties == "gt":
        return ((preferences > 0) == (difference > 0)).astype(float), counted
    if ties == "strict":
        return (preferences * difference > 0).astype(float), counted
    return (1 + np.sign(preferences) * np.sign(difference)) / 2, difference != 0


def accuracy(preferences: Values, difference: Values, ties: str = "half") -> Values:
    """Return the share of counted pairs in which the better base is preferred, along the last axis."""
    earned, counted = credit(preferences, difference, ties)
    return earned[..., counted].mean(axis=-1)


def null_deviation(n: int) -> float:
    """Return the standard deviation of the accuracy of a random order of n bases: half that of Kendall's tau (1938)."""
    return math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))) / 2


def resampled_weights(units: Places, resampling: Resampling) -> Values:
    """Return the weight of each pair in each resample of bases, shape (resamples, pairs).

    Bases of one unit are drawn together. The weight of a pair within a unit is the unit's count, that of any other pair the
    product of both counts; a base forms no pair with itself.
    """
    drawn = np.concatenate(list(resampling.weights(int(units.max()) + 1)))[:, units]
    first, second = first_second(len(units))
    return np.where(units[first] == units[second], drawn[:, first], drawn[:, first] * drawn[:, second])


def gaps(difference: Values) -> dict[str, Mask]:
    """Return quintiles of the pairs by absolute difference, the smallest first: `gap_1` to `gap_5`."""
    size = np.abs(difference)
    edges = np.quantile(size, np.arange(1, QUINTILES) / QUINTILES)
    fifth = np.searchsorted(edges, size, side="left")
    return {f"gap_{number + 1}": fifth == number for number in range(QUINTILES)}


def matched(cohort: Cohort) -> dict[str, Mask]:
    """Return pairs by config: `same_F` share field F, `only_F` differ in F and in no other field."""
    alike = {name: _alike(cohort, [name]) for name in cohort.fields}
    masks = {f"same_{name}": mask for name, mask in alike.items()}
    for name, mask in alike.items():
        others = _alike(cohort, [other for other in cohort.fields if other != name])
        masks[f"only_{name}"] = others & ~mask
    return {name: mask for name, mask in masks.items() if mask.any()}


def contrasts(cohort: Cohort, fields: Sequence[str]) -> dict[str, Mask]:
    """Return pairs of two groups of bases that differ only in the given fields: `F=A/B` for two values (or combinations).

    Only groups with at least one such pair are included (arXiv 2504.12491, Figures 2, 6 and 7).
    """
    groups = cohort.rows[list(fields)].astype(str).agg(",".join, axis=1).to_numpy()
    first, second = first_second(len(groups))
    rest = _alike(cohort, [name for name in cohort.fields if name not in fields]) & (groups[first] != groups[second])
    masks: dict[str, Mask] = {}
    for pair in np.flatnonzero(rest):
        one, other = sorted((groups[first[pair]], groups[second[pair]]))
        mask = masks.setdefault(f"{','.join(fields)}={one}/{other}", np.zeros(len(first), dtype=bool))
        mask[pair] = True
    return masks


def _alike(cohort: Cohort, fields: Iterable[str]) -> Mask:
    """Return a mask of pairs whose bases agree in all these fields."""
    first, second = first_second(len(cohort.rows))
    columns = [cohort.rows[name].to_numpy() for name in fields]
    return np.all([column[first] == column[second] for column in columns] or [np.ones(len(first), dtype=bool)], axis=0)


def rows(cohort: Cohort) -> list[dict[str, Any]]:
    """Return rows of `tables.PAIRS`: every pair for every target; none for fewer than two bases."""
    if len(cohort.rows) < 2:
        return []
    first, second = first_second(len(cohort.rows))
    alike = {name: _alike(cohort, [name]) for name in cohort.fields}
    rows = []
    for target in cohort.targets:
        difference = differences(cohort.values([target])[:, 0])
        fifths = gaps(difference)
        for pair, (one, other) in enumerate(zip(first, second, strict=True)):
            rows.append(
                {
                    "target": target,
                    "first": cohort.ids[one],
                    "second": cohort.ids[other],
                    "difference": float(difference[pair]),
                    "gap": next(name for name, mask in fifths.items() if mask[pair]),
                    "shared": [name for name, mask in alike.items() if mask[pair]],
                    "twins": bool(cohort.twins[one] == cohort.twins[other]),
                    "same_unit": bool(cohort.units[one] == cohort.units[other]),
                }
            )
    return rows
