"""Declines along pre-training: whether the last steps of a curve score lower than its best earlier steps.

The best step is partly best by chance, so it cannot be compared with the last as if it had been chosen beforehand. All runs
of neighbouring steps are compared with all runs that end at the last step. The largest difference counts only as far as it
exceeds the largest difference of curves that do not fall (a scan with dyadic windows, Arias-Castro et al. 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its submodules are imported when they are used
from numpy.typing import NDArray

from workflow.analysis.curves import Curve, drawn_noise
from workflow.statistics import NORMAL, Resampling, student_tail

Values = NDArray[np.float64]

LENGTHS = (1, 2, 3, 5, 8)  # lengths of runs, in steps
SETTLED = 100  # steps from a hundredth of the last one on are compared: an untrained model's constant answer is no peak
FEWEST = 6
MANY = 6  # inner steps from which on the largest quarter of their squares is left out
NOTHING = 1e-12  # differences that are 0 except for rounding


@dataclass(frozen=True)
class Decline:
    """Mean score of a run of steps minus that of the last steps.

    best, last: first and last step of both runs; value: difference; low: lower confidence bound at the level, corrected for
    the choice of runs; p_value: against no decline, corrected likewise; n: compared steps.
    """

    best: tuple[float, float]
    last: tuple[float, float]
    value: float
    low: float
    p_value: float
    n: int


@dataclass(frozen=True)
class Contrasts:
    """runs: indices of the first and last steps of both runs, (contrasts, 4); weights: of each step, (contrasts, steps)."""

    runs: NDArray[np.int64]
    weights: Values


@lru_cache
def contrasts(steps: int) -> Contrasts:
    """All runs of some lengths against all later runs that end at the last step."""
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
    """The steps of a curve that are compared: those of the last two decades."""
    recent = curve.steps >= curve.steps[-1] / SETTLED
    return Curve(curve.steps[recent], curve.values[recent], curve.draws[recent])


def comparable(curve: Curve) -> bool:
    """Whether a decline can be estimated: six steps in the last two decades."""
    return len(settled(curve).steps) >= FEWEST


def decline(curve: Curve, resampling: Resampling) -> Decline:
    """The largest decline of a curve in standard errors. curve: `comparable`.

    Steps scatter by their rows and seeds, known from resamples, and beyond. The latter is estimated from the distance of
    steps to the line between their neighbours in log steps, and estimated again for each simulated flat curve, so that few
    steps alone do not produce a decline.
    """
    curve = settled(curve)
    scan = Scan(curve)
    largest_scatter = scan.largest_scatter(resampling.level)
    largest = scan.ratios(drawn_noise(curve, largest_scatter, resampling).T).max(axis=0)
    bound = float(np.quantile(largest, resampling.level))
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
        _p_value(float(ratios[top]), largest, bound, resampling.level, freedom),
        len(curve.steps),
    )


class Scan:
    """All contrasts of a curve with their standard errors, for its own values and for simulated ones.

    runs, weights: of `contrasts`; sampled: variance of each contrast by rows and seeds; squares: variance that scatter of
    variance 1 between steps adds, both of shape (contrasts,); freedom: of the scatter between steps.
    """

    def __init__(self, curve: Curve) -> None:
        """Compute what does not depend on the values. curve: `settled`."""
        pairs = contrasts(len(curve.steps))
        self.curve, self.runs, self.weights = curve, pairs.runs, pairs.weights
        self.sampled = np.maximum(0, np.einsum("ci,ij,cj->c", self.weights, curve.noise, self.weights))
        self.squares = (self.weights**2).sum(axis=1)
        self._bends = _curvatures(curve.steps)
        self._explained = float(np.einsum("bi,ij,bj->b", self._bends, curve.noise, self._bends).mean())
        self.freedom = _freedom_of(self._bends)

    def ratios(self, values: Values) -> Values:
        """All differences divided by their standard errors, shape (contrasts, curves). values: shape (steps, curves)."""
        return _ratio(self.weights @ values, self.errors(values))

    def errors(self, values: Values) -> Values:
        """Standard errors of all contrasts, shape (contrasts, curves)."""
        return np.sqrt(self.sampled[:, None] + self.squares[:, None] * self._scatters(values))

    def _scatters(self, values: Values) -> Values:
        """Variance between steps beyond rows and seeds of each curve: a mean square over inner steps.

        With many steps the largest quarter is left out, so that the few steps where a curve turns or falls count little.
        """
        squares = np.sort((self._bends @ values) ** 2, axis=0)
        counted = len(squares) - (len(squares) // 4 if len(squares) >= MANY else 0)
        return np.maximum(0, squares[:counted].mean(axis=0) / _smallest(counted / len(squares)) - self._explained)

    def largest_scatter(self, level: float) -> float:
        """One-sided upper confidence bound of the standard deviation between steps beyond rows and seeds.

        The more flat curves scatter, the larger is their largest ratio. A curve that scatters little by chance has a large
        ratio. Compared with curves of its own estimated scatter it would be significant too often, so it is compared with
        curves of this bound (Berger & Boos 1994).
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
    """Differences divided by their errors; 0 where the error is 0, which means that the noise is unknown."""
    return np.divide(differences, errors, out=np.zeros_like(errors), where=errors > NOTHING)


def _curvatures(steps: Values) -> Values:
    """Distance of each inner step to the line through its neighbours in log steps, scaled to the variance of one step: shape
    (steps - 2, steps).
    """
    log_steps = np.log(steps)
    rows = np.zeros((len(steps) - 2, len(steps)))
    for middle, row in enumerate(rows, start=1):
        share = (log_steps[middle + 1] - log_steps[middle]) / (log_steps[middle + 1] - log_steps[middle - 1])
        row[middle - 1 : middle + 2] = np.array([-share, 1, share - 1]) / np.sqrt(1 + share**2 + (1 - share) ** 2)
    return rows


def _freedom(inner: float, known: float, unknown: float) -> float:
    """Degrees of freedom of an error of two parts, one of which is estimated (Satterthwaite 1946).

    unknown: upper bound of that part, because the error would appear known if steps scatter little by chance.
    """
    return inner * (1 + known / unknown) ** 2 if unknown > 0 else NORMAL


def _p_value(seen: float, largest: Values, bound: float, level: float, freedom: float) -> float:
    """Share of flat curves whose largest ratio is at least as large.

    Beyond the resolution of resamples: Student's t, corrected for the number of comparisons that reproduces the quantile at
    the level.
    """
    counted = (1 + (largest >= seen).sum()) / (1 + len(largest))
    if seen <= bound:
        return float(counted)
    many = (1 - level) / (student_tail(bound, freedom) / 2)
    return float(min(counted, many * student_tail(seen, freedom) / 2))
