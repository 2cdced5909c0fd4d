"""Declines along pre-training: whether the last steps of a curve score lower than its best earlier steps.

The best step is partly best by chance, so it cannot be compared with the last as if it had been chosen beforehand. All runs
of neighbouring steps are compared with all runs that end at the last step. The largest difference counts only as far as it
exceeds the largest difference of curves that do not fall (a scan with dyadic windows, Arias-Castro et al. 2005).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its submodules are imported when they are used
from numpy.typing import NDArray

from workflow.analysis.curves import Curve, drawn_noise
from workflow.analysis.fits import NOTHING as ROUNDING
from workflow.analysis.fits import remaining
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
    largest = scan.largest(drawn_noise(curve, largest_scatter, resampling).T)
    bound = float(np.quantile(largest, resampling.level))
    top = scan.top(curve.values)
    freedom = _freedom(scan.freedom, top.sampled, top.squares * largest_scatter**2)
    ends = [float(step) for step in curve.steps[list(top.run)]]
    return Decline(
        (ends[0], ends[1]),
        (ends[2], ends[3]),
        top.value,
        top.value - bound * top.error,
        _p_value(top.ratio, largest, bound, resampling.level, freedom),
        len(curve.steps),
    )


class Contrast(NamedTuple):
    """A run of steps against the last steps.

    run: places of the first and the last step of both; value: difference of their means; error: its standard error; sampled:
    variance by rows and seeds; squares: variance that scatter of variance 1 between steps adds.
    """

    run: tuple[int, int, int, int]
    value: float
    error: float
    sampled: float
    squares: float

    @property
    def ratio(self) -> float:
        """The difference in standard errors; 0 if the error is 0, which means that the noise is unknown."""
        return self.value / self.error if self.error > NOTHING else 0.0


class Scan:
    """All contrasts of a curve with their standard errors, for its own values and for simulated ones.

    A contrast is a run of some length against the last steps of some length. freedom: degrees of freedom of the scatter
    between steps.
    """

    def __init__(self, curve: Curve) -> None:
        """Compute what does not depend on the values. curve: `settled`."""
        self.curve = curve
        self._bends = _curvatures(curve.steps)
        explained = ((self._bends @ curve.noise) * self._bends).sum(axis=1)
        self._explained = float(np.where(explained > ROUNDING * curve.noise.max(), explained, 0).mean())
        self.freedom = _freedom_of(self._bends)
        self._sampled = {lengths: _sampled(curve.noise, *lengths) for lengths in _lengths(len(curve.steps))}

    def largest(self, curves: Values) -> Values:
        """The largest difference in standard errors of each curve, shape (curves,). curves: shape (steps, curves)."""
        largest = np.full(curves.shape[1], -np.inf)
        for _, differences, variances in self._groups(curves):
            squares = np.abs(differences) * differences  # with the sign, since only the root of the largest is needed
            ratios = np.divide(squares, variances, out=np.zeros_like(squares), where=variances > NOTHING**2)
            np.maximum(largest, ratios.max(axis=0), out=largest)
        return np.sign(largest) * np.sqrt(np.abs(largest))

    def top(self, values: Values) -> Contrast:
        """The contrast with the largest difference in standard errors of one curve, shape (steps,); if several have it, such
        as all if the noise is unknown, that with the largest difference.
        """
        return max(self._tops(values), key=lambda contrast: (contrast.ratio, contrast.value))

    def _tops(self, values: Values) -> Iterator[Contrast]:
        """The same for each two lengths."""
        last = len(values) - 1
        for (tail, length), differences, variances in self._groups(values[:, None]):
            value, error = differences[:, 0], np.sqrt(variances[:, 0])
            ratios = np.divide(value, error, out=np.zeros_like(value), where=error > NOTHING)
            start = int(np.lexsort((value, ratios))[-1])
            run, sampled = (start, start + length - 1, last - tail + 1, last), float(self._sampled[tail, length][start])
            yield Contrast(run, float(value[start]), float(error[start]), sampled, 1 / length + 1 / tail)

    def _groups(self, curves: Values) -> Iterator[tuple[tuple[int, int], Values, Values]]:
        """Contrasts of the same two lengths: these, their differences and the variances of these, both (contrasts, curves)."""
        scatters, curves = self._scatters(curves), np.ascontiguousarray(curves)
        means = {length: _run_means(curves, length) for length in {length for both in self._sampled for length in both}}
        for (tail, length), sampled in self._sampled.items():
            differences = means[length][: len(sampled)] - means[tail][-1]
            yield (tail, length), differences, sampled[:, None] + (1 / length + 1 / tail) * scatters

    def _scatters(self, curves: Values) -> Values:
        """Variance between steps beyond rows and seeds of each curve: a mean square over inner steps.

        With many steps the largest quarter is left out, so that the few steps where a curve turns or falls count little.
        """
        squares = (curves.T @ self._bends.T) ** 2
        count = squares.shape[1]
        counted = count - (count // 4 if count >= MANY else 0)
        smallest = np.partition(squares, counted - 1, axis=1)[:, :counted]
        return np.maximum(0, smallest.mean(axis=1) / _smallest(counted / count) - self._explained)

    def largest_scatter(self, level: float) -> float:
        """One-sided upper confidence bound of the standard deviation between steps beyond rows and seeds.

        The more flat curves scatter, the larger is their largest ratio. A curve that scatters little by chance has a large
        ratio. Compared with curves of its own estimated scatter it would be significant too often, so it is compared with
        curves of this bound (Berger & Boos 1994).
        """
        variance = float(((self._bends @ self.curve.values) ** 2).mean())
        largest = variance * self.freedom / float(scipy.special.chdtri(self.freedom, level))
        return max(0.0, largest - self._explained) ** 0.5


def _lengths(steps: int) -> list[tuple[int, int]]:
    """Lengths of the last steps and of the runs before them."""
    return [
        (tail, length)
        for tail, length in itertools.product(LENGTHS, LENGTHS)
        if tail <= steps // 2 and tail + length <= steps
    ]


def _run_means(values: Values, length: int) -> Values:
    """Means of all runs of some length, shape (steps - length + 1, …). values: shape (steps, …)."""
    runs = len(values) - length + 1
    return np.sum([values[start : start + runs] for start in range(length)], axis=0) / length


def _sampled(noise: Values, tail: int, length: int) -> Values:
    """Variances of the differences of all runs before the last steps and these, shape (runs,).

    noise: covariance of the steps, shape (steps, steps).
    """
    runs = len(noise) - tail - length + 1
    with_run, with_tail = _run_means(noise, length)[:runs], noise[:, -tail:].mean(axis=1)
    of_runs = sum(with_run[np.arange(runs), np.arange(runs) + place] for place in range(length)) / length
    between = _run_means(with_tail, length)[:runs]
    return remaining(of_runs + with_tail[-tail:].mean(), 2 * between)


def _smallest(share: float) -> float:
    """Mean of the smallest share of squares of a standard normal variable."""
    return float(scipy.special.chdtr(3, scipy.special.chdtri(1, 1 - share))) / share


def _freedom_of(bends: Values) -> float:
    """Degrees of freedom of the mean square of inner steps, which share their neighbours (Box 1954)."""
    products = bends @ bends.T
    return float(np.trace(products) ** 2 / (products**2).sum())


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
