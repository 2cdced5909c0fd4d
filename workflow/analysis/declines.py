"""Declines along pre-training: whether the last steps of a curve score lower than its best ones so far.

A best step is the best partly by luck, so it is not compared with the last as if it had been named beforehand: all runs of
neighbouring steps are compared with all runs that end at the last step, and the largest of these differences counts only by as
much as it exceeds what the largest does on curves that do not fall (a scan with dyadic windows, Arias-Castro et al. 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workflow.analysis.curves import Curve, drawn_noise
from workflow.statistics import NORMAL, Resampling, student_tail

Values = NDArray[np.float64]

LENGTHS = (1, 2, 3, 5, 8)  # steps in a run
SETTLED = 100  # steps from the last one's hundredth on are compared: an untrained model's constant answer is no peak
FEWEST = 6
FARTHEST = 40.0  # errors that stand for a difference without any error
MANY = 6  # inner steps from which on their median is taken
NOTHING = 1e-12  # scores that are 0 but for rounding
HALF = 0.455  # median of the chi-square distribution with one degree of freedom


@dataclass(frozen=True)
class Decline:
    """The mean score of a run of steps less that of the last steps.

    best, last: first and last step of both runs; value: difference; low: what it is at least, at the level, the choice of runs
    allowed for; p_value: against no decline, likewise; n: compared steps.
    """

    best: tuple[float, float]
    last: tuple[float, float]
    value: float
    low: float
    p_value: float
    n: int


@dataclass(frozen=True)
class Contrasts:
    """runs: places of both runs' first and last steps, (contrasts, 4); weights: what each step counts, (contrasts, steps)."""

    runs: NDArray[np.int64]
    weights: Values


@lru_cache
def contrasts(steps: int) -> Contrasts:
    """All runs of some lengths against all that end at the last of so many steps and begin behind them."""
    runs, rows = [], []
    for tail in (length for length in LENGTHS if length <= steps // 2):
        for length in LENGTHS:
            for start in range(steps - tail - length + 1):
                row = np.zeros(steps)
                row[start : start + length], row[-tail:] = 1 / length, -1 / tail
                runs.append((start, start + length - 1, steps - tail, steps - 1))
                rows.append(row)
    return Contrasts(np.array(runs), np.array(rows))


def settled(curve: Curve) -> Curve:
    """The steps of a curve that are compared: the last two decades."""
    kept = curve.steps >= curve.steps[-1] / SETTLED
    return Curve(curve.steps[kept], curve.values[kept], curve.draws[kept])


def comparable(curve: Curve) -> bool:
    """Whether a decline can be looked for: six steps in the last two decades."""
    return len(settled(curve).steps) >= FEWEST


def decline(curve: Curve, how: Resampling) -> Decline:
    """The largest decline of a curve by its standard error. curve: `comparable`.

    Steps scatter by their rows and seeds, as resamples say, and beyond: by as much as steps are off the line between their
    neighbours in log steps, by the median of many, so that the few places where a curve turns count little. Of simulated curves
    that are flat the scatter is estimated anew, so few steps make no decline of themselves.
    """
    curve = settled(curve)
    found, bends = contrasts(len(curve.steps)), _curvatures(curve.steps)
    sampled = np.einsum("ci,ij,cj->c", found.weights, curve.noise, found.weights)
    squares = (found.weights**2).sum(axis=1)
    explained = np.einsum("bi,ij,bj->b", bends, curve.noise, bends)[:, None]

    def scatters(values: Values) -> Values:
        """Variance between steps beyond rows and seeds, of each curve; values: shape (steps, curves)."""
        squares = (bends @ values) ** 2
        if len(bends) < MANY:
            return np.maximum(0, (squares - explained).mean(axis=0))
        return np.maximum(0, np.median(squares - HALF * explained, axis=0) / HALF)

    def errors(values: Values) -> Values:
        """Standard errors of all contrasts, shape (contrasts, curves)."""
        return np.sqrt(np.maximum(sampled, 0)[:, None] + squares[:, None] * scatters(values))

    values = curve.values[:, None]
    between = _uncertain(curve, bends, float(explained.mean()), how)
    flat = drawn_noise(curve, between, how).T
    largest = _ratio(found.weights @ flat, errors(flat)).max(axis=0)
    error = errors(values)[:, 0]
    unknown = squares * float(np.quantile(between, how.level)) ** 2
    differences = found.weights @ curve.values
    ratios = _ratio(differences, error)
    top = int(ratios.argmax())
    bound = float(np.quantile(largest, how.level))
    ends = curve.steps[found.runs[top]]
    return Decline(
        (float(ends[0]), float(ends[1])),
        (float(ends[2]), float(ends[3])),
        float(differences[top]),
        float(differences[top] - bound * error[top]),
        _p_value(
            float(ratios[top]), largest, bound, how.level, _freedom(_freedom_of(bends), sampled[top], unknown[top])
        ),
        len(curve.steps),
    )


def _uncertain(curve: Curve, bends: Values, explained: float, how: Resampling) -> Values:
    """Standard deviation between steps beyond rows and seeds, drawn for each resample from its fiducial distribution (Tsui &
    Weerahandi 1989): as an estimate it would often be 0 where it is not. Shape (resamples, 1)."""
    variance, freedom = float(((bends @ curve.values) ** 2).mean()), _freedom_of(bends)
    drawn = variance * freedom / np.random.default_rng([how.seed, len(bends)]).chisquare(freedom, (how.resamples, 1))
    return np.sqrt(np.maximum(0, drawn - explained))


def _freedom_of(bends: Values) -> float:
    """Degrees of freedom of the mean square of inner steps, which share their neighbours (Box 1954)."""
    products = bends @ bends.T
    return float(np.trace(products) ** 2 / (products**2).sum())


def _ratio(differences: Values, errors: Values) -> Values:
    """Differences by their errors; 0 where neither is anything, many errors where the error alone is nothing."""
    return np.divide(differences, errors, out=np.where(differences > NOTHING, FARTHEST, 0.0), where=errors > NOTHING)


def _curvatures(steps: Values) -> Values:
    """How far each inner step is off the line through its neighbours in log steps, scaled to the variance of one step: shape
    (steps - 2, steps)."""
    place = np.log(steps)
    rows = np.zeros((len(steps) - 2, len(steps)))
    for middle, row in enumerate(rows, start=1):
        share = (place[middle + 1] - place[middle]) / (place[middle + 1] - place[middle - 1])
        row[middle - 1 : middle + 2] = np.array([-share, 1, share - 1]) / np.sqrt(1 + share**2 + (1 - share) ** 2)
    return rows


def _freedom(inner: float, known: float, unknown: float) -> float:
    """Degrees of freedom of an error of two parts, of which one is estimated with so many (Satterthwaite 1946).

    unknown: as large as that part may be, since where steps scatter little by chance the error would seem to be known.
    """
    return inner * (1 + known / unknown) ** 2 if unknown > 0 else NORMAL


def _p_value(seen: float, largest: Values, bound: float, level: float, freedom: float) -> float:
    """How often the largest ratio of a flat curve is that large; beyond what resamples can tell, by Student's t, corrected for
    as many comparisons as make their quantile at the level."""
    counted = (1 + (largest >= seen).sum()) / (1 + len(largest))
    if seen <= bound:
        return float(counted)
    many = (1 - level) / (student_tail(bound, freedom) / 2)
    return float(min(counted, many * student_tail(seen, freedom) / 2))
