"""Declines along pre-training: whether the last steps of a curve score lower than its best ones so far.

A best step is the best partly by luck, so it is not compared with the last as if it had been named beforehand: all runs of
neighbouring steps are compared with all runs that end at the last step, and the largest of these differences counts only by as
much as it exceeds what the largest does on curves that do not fall (a scan with dyadic windows, Arias-Castro et al. 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import NDArray

from workflow.analysis.curves import Curve, drawn_noise
from workflow.statistics import NORMAL, Resampling, student_tail

Values = NDArray[np.float64]

LENGTHS = (1, 2, 3, 5, 8)  # steps in a run
SETTLED = 100  # steps from the last one's hundredth on are compared: an untrained model's constant answer is no peak
FEWEST = 6
MANY = 6  # inner steps from which on the largest quarter of their squares is left out
NOTHING = 1e-12  # scores that are 0 but for rounding


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

    Steps scatter by their rows and seeds, as resamples say, and beyond, which is estimated from how far steps are off the line
    between their neighbours in log steps. Of simulated curves that are flat it is estimated anew, so few steps make no decline
    of themselves.
    """
    curve = settled(curve)
    scan = Scan(curve)
    largest_scatter = scan.largest_scatter(how.level)
    largest = scan.ratios(drawn_noise(curve, largest_scatter, how).T).max(axis=0)
    bound = float(np.quantile(largest, how.level))
    ratios = scan.ratios(curve.values[:, None])[:, 0]
    top = int(ratios.argmax())
    value, error = float(scan.weights[top] @ curve.values), float(scan.errors(curve.values[:, None])[top, 0])
    freedom = _freedom(scan.freedom, scan.sampled[top], scan.squares[top] * largest_scatter**2)
    ends = [float(step) for step in curve.steps[scan.runs[top]]]
    return Decline(
        (ends[0], ends[1]),
        (ends[2], ends[3]),
        value,
        value - bound * error,
        _p_value(float(ratios[top]), largest, bound, how.level, freedom),
        len(curve.steps),
    )


class Scan:
    """All contrasts of a curve with their standard errors, for its own values and for simulated ones.

    runs, weights: of `contrasts`; sampled: variance of each contrast by rows and seeds; squares: what variance 1 between steps
    adds to it, both of shape (contrasts,); freedom: of the scatter between steps.
    """

    def __init__(self, curve: Curve) -> None:
        """Prepare what does not depend on the values. curve: `settled`."""
        found = contrasts(len(curve.steps))
        self.curve, self.runs, self.weights = curve, found.runs, found.weights
        self.sampled = np.maximum(0, np.einsum("ci,ij,cj->c", self.weights, curve.noise, self.weights))
        self.squares = (self.weights**2).sum(axis=1)
        self._bends = _curvatures(curve.steps)
        self._explained = float(np.einsum("bi,ij,bj->b", self._bends, curve.noise, self._bends).mean())
        self.freedom = _freedom_of(self._bends)

    def ratios(self, values: Values) -> Values:
        """All differences by their standard errors, shape (contrasts, curves). values: shape (steps, curves)."""
        return _ratio(self.weights @ values, self.errors(values))

    def errors(self, values: Values) -> Values:
        """Standard errors of all contrasts, shape (contrasts, curves)."""
        return np.sqrt(self.sampled[:, None] + self.squares[:, None] * self._scatters(values))

    def _scatters(self, values: Values) -> Values:
        """Variance between steps beyond rows and seeds of each curve: a mean square over inner steps, of many without the
        largest quarter, so that the few places where a curve turns or falls count little."""
        squares = np.sort((self._bends @ values) ** 2, axis=0)
        kept = len(squares) - (len(squares) // 4 if len(squares) >= MANY else 0)
        return np.maximum(0, squares[:kept].mean(axis=0) / _smallest(kept / len(squares)) - self._explained)

    def largest_scatter(self, level: float) -> float:
        """One-sided upper confidence bound of the standard deviation between steps beyond rows and seeds.

        The more flat curves scatter, the larger is their largest ratio. A curve that scatters little by chance has a large one,
        and beside curves with its own estimated scatter it would stand out too often, so it is compared with curves that scatter
        by this bound (Berger & Boos 1994).
        """
        variance = float(((self._bends @ self.curve.values) ** 2).mean())
        largest = variance * self.freedom / float(scipy.special.chdtri(self.freedom, level))
        return max(0.0, largest - self._explained) ** 0.5


def _smallest(share: float) -> float:
    """Mean of the smallest share of squares of a standard normal variable."""
    return float(scipy.special.chdtr(3, scipy.special.chdtri(1, 1 - share))) / share


def _freedom_of(bends: Values) -> float:
    """Degrees of freedom of the mean square of inner steps, which share their neighbours (Box 1954)."""
    products = bends @ bends.T
    return float(np.trace(products) ** 2 / (products**2).sum())


def _ratio(differences: Values, errors: Values) -> Values:
    """Differences by their errors; 0 where an error is 0, which says nothing of chance."""
    return np.divide(differences, errors, out=np.zeros_like(errors), where=errors > NOTHING)


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
