"""Splits: the bases that forecasters are fitted on, and the pairs that they are evaluated on; no unit is in both.

A split has rounds, each with a set of pairs; a round has folds, each with training bases and some of the round's pairs, on
which the fitted forecaster is evaluated. Bases of one unit (`Cohort.units`) stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting.cohorts import FEWEST, Cohort
from workflow.forecasting.pairs import first_second

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

REPEATS = 20  # random splits, seeds 0 to 19, and their share of training bases (arXiv 2504.12491, section 4.3)
TRAIN = 0.6
LEAST = 5  # training bases: 20 ordered pairs, the minimum of a leaf in the trees
GROUPS = 5  # a pair's two groups are held out: the rest is again 60 % of the bases


@dataclass(frozen=True)
class Fold:
    """train: mask of training bases, shape (bases,); pairs: mask of pairs to evaluate on, without training bases."""

    train: Mask
    pairs: Mask


Round = list[Fold]


def names(fields: Sequence[str]) -> list[str]:
    """Return the splits of a cohort with these config fields; some may have no round."""
    return ["every_pair", "random", *(f"leave_out_{name}" for name in fields)]


def rounds(cohort: Cohort, split: str) -> list[Round]:
    """Return the rounds of a split.

    every_pair: one round with every pair of the table, evaluated in the folds that hold out both bases.
    random: one round for each seed, with 40 % of the bases held out; none with fewer units than FEWEST.
    leave_out_F: one round for each value of field F, with its bases held out; not for a value with a single unit, which has
    no pair, nor for one that leaves fewer than LEAST training bases.
    """
    if len(cohort.rows) < 2:
        return []
    if split == "every_pair":
        return [every_pair(cohort.units)]
    if split == "random":
        seeds = range(REPEATS) if cohort.units.max() + 1 >= FEWEST else []
        return [[drawn(cohort.units, seed)] for seed in seeds]
    return _left_out(cohort, split.removeprefix("leave_out_"))


def _left_out(cohort: Cohort, field: str) -> list[Round]:
    """Return one round for each value of a field that can be left out."""
    column, units = cohort.rows[field].to_numpy(), cohort.units
    levels = [level for level in cohort.levels(field) if len(np.unique(units[column == level])) > 1]
    folds = [_held_out(column == level, units) for level in levels]
    return [[fold] for fold in folds if fold.train.sum() >= LEAST]


def every_pair(units: Places) -> Round:
    """Return one fold for each two of GROUPS random groups, with the pairs between them; for neighbouring groups also those
    within the first."""
    group = _dealt(units)
    first, second = (group[side] for side in first_second(len(units)))
    folds = []
    for one in range(GROUPS):
        for other in range(one + 1, GROUPS):
            asked = (np.minimum(first, second) == one) & (np.maximum(first, second) == other)
            for alone in (one, other):
                partner = (alone + 1) % GROUPS
                if partner in (one, other):
                    asked |= (first == alone) & (second == alone)
            folds.append(Fold(~np.isin(group, (one, other)), asked))
    return folds


def _dealt(units: Places) -> Places:
    """Return a random group for each base; groups have nearly equal sizes."""
    group = np.zeros(len(units), dtype=np.int64)
    sizes = np.zeros(GROUPS, dtype=np.int64)
    for unit in np.random.default_rng(0).permutation(units.max() + 1):
        smallest = sizes.argmin()
        group[units == unit] = smallest
        sizes[smallest] += (units == unit).sum()
    return group


def drawn(units: Places, seed: int) -> Fold:
    """Return a fold with a random 60 % of the bases for training: units in random order, each included if it still fits."""
    room = round(TRAIN * len(units))
    train = np.zeros(len(units), dtype=bool)
    for unit in np.random.default_rng(seed).permutation(units.max() + 1):
        members = units == unit
        if train.sum() + members.sum() <= room:
            train |= members
    return _held_out(~train, units)


def _held_out(test: Mask, units: Places) -> Fold:
    """Return a fold with all pairs of the held-out bases, and all bases of other units for training."""
    first, second = first_second(len(units))
    return Fold(~np.isin(units, units[test]), test[first] & test[second])


def asked(rounds: Sequence[Round]) -> Mask:
    """Return the pairs of each round, shape (rounds, pairs)."""
    return np.array([np.any([fold.pairs for fold in folds], axis=0) for folds in rounds])


def candidates(pairs: Mask, bases: int) -> Places:
    """Return the indices of the bases in some pairs."""
    first, second = first_second(bases)
    return np.unique(np.concatenate([first[pairs], second[pairs]]))
