"""Seeded bootstrap intervals; what is resampled is named by each caller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BLOCK = 4_000_000  # multiplicities held at once: 32 MB, whatever the number of rows
KEPT = 16_000_000  # multiplicities of one resampling that are kept, a byte each: drawing them takes most of the time
NORMAL = 1e6  # degrees of freedom from which Student's t is the normal distribution
FARTHEST = 40.0  # standard errors beyond which nothing is left of it with more degrees of freedom than this


@dataclass(frozen=True)
class Interval:
    """A point estimate with its standard error and a percentile bootstrap interval; n counts the resampled units."""

    value: float
    error: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Resampling:
    """How an interval is made: number of resamples, coverage, seed."""

    resamples: int
    level: float
    seed: int

    def weights(self, n: int) -> Iterator[Values]:
        """How often each of n units occurs in each resample, in blocks of shape (at most `resamples`, n).

        The same at each call: two statistics over the same units are resampled together, as a paired comparison needs.
        """
        if self.resamples * n > KEPT:
            yield from _drawn(self, n)
        else:
            whole, rows = _multiplicities(self, n), max(1, BLOCK // n)
            yield from (whole[start : start + rows].astype(float) for start in range(0, self.resamples, rows))

    def bounds(self, estimates: Values) -> tuple[float, float]:
        """Percentile interval of resampled estimates (Efron & Tibshirani 1993, section 13.3)."""
        tail = (1 - self.level) / 2
        low, high = np.quantile(estimates, [tail, 1 - tail])
        return float(low), float(high)

    def columns(self, estimates: Values) -> Values:
        """The same for each column of estimates, shape (resamples, n): lower and upper ends, shape (2, n)."""
        tail = (1 - self.level) / 2
        return np.quantile(estimates, [tail, 1 - tail], axis=0)

    def means(self, values: Values) -> Values:
        """Resampled means of values, shape (n,), one for each resample."""
        return np.concatenate([weights @ values for weights in self.weights(len(values))]) / len(values)


def _drawn(how: Resampling, n: int) -> Iterator[Values]:
    """Blocks of multiplicities of n units, n of which are drawn with replacement for each resample."""
    generator, rows = np.random.default_rng(how.seed), max(1, BLOCK // n)
    for start in range(0, how.resamples, rows):
        size = min(rows, how.resamples - start)
        yield generator.multinomial(n, np.full(n, 1 / n), size=size).astype(float)


@lru_cache(maxsize=8)
def _multiplicities(how: Resampling, n: int) -> NDArray[np.uint8]:
    """All multiplicities of a resampling, kept since many samples are of the same size; none is ever above 255."""
    return np.concatenate([block.astype(np.uint8) for block in _drawn(how, n)])


def mean(values: Values, how: Resampling) -> Interval:
    """Mean of values, shape (n,), with its interval over resampled values."""
    return interval(float(values.mean()), how.means(values), len(values), how)


def interval(value: float, resampled: Values, n: int, how: Resampling) -> Interval:
    """An estimate with what its resamples, shape (resamples,), say of its uncertainty."""
    return Interval(value, float(resampled.std()), *how.bounds(resampled), n)


def p_value(resampled: Values) -> float:
    """Two-sided bootstrap p-value against 0: twice the smaller share of resamples on one side, never below 2/(B+1)."""
    below, above = np.sum(resampled <= 0) + 1, np.sum(resampled >= 0) + 1
    return float(min(1.0, 2 * min(below, above) / (len(resampled) + 1)))


def holm(p_values: Values) -> Values:
    """P-values adjusted for looking at all of them (Holm, 1979): below a level each, the chance of any false one is."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def weighted_mean(values: Values, weights: Values) -> Values:
    """Mean along the last axis."""
    return (values * weights).sum(axis=-1) / weights.sum(axis=-1)


def weighted_median(values: Values, weights: Values) -> Values:
    """Median along the last axis of values that occur `weights` times; between two middle ones, their mean."""
    weights = np.broadcast_to(weights, values.shape)
    order = values.argsort(axis=-1)
    ordered, passed = np.take_along_axis(values, order, -1), np.take_along_axis(weights, order, -1).cumsum(axis=-1)
    half = passed[..., -1:] / 2
    middle = np.stack([(passed >= half).argmax(axis=-1), (passed > half).argmax(axis=-1)], axis=-1)
    return np.take_along_axis(ordered, middle, -1).mean(axis=-1)


def student_width(level: float, freedom: float) -> float:
    """Half-width of the two-sided interval of Student's t, in standard errors. freedom: degrees of freedom, from 1."""
    scale, angles, passed = _student(freedom)
    return float(scale * np.tan(np.interp(level, passed, angles)))


def student_tail(statistic: float, freedom: float) -> float:
    """Two-sided p-value of Student's t."""
    scale, angles, passed = _student(freedom)
    return float(1 - np.interp(np.arctan(abs(statistic) / scale), angles, passed))


@lru_cache
def _student(freedom: float) -> tuple[float, Values, Values]:
    """A scale, angles, and the share of Student's t within plus and minus the scale times the tangent of each angle.

    With the root of the degrees of freedom as scale, the density in that angle is its cosine to the power of freedom - 1.
    """
    freedom = min(freedom, NORMAL)
    scale = float(np.sqrt(freedom))
    angles = np.linspace(0, np.arctan(FARTHEST / scale) if freedom > FARTHEST else np.pi / 2, 20_001)
    density = np.maximum(np.cos(angles), 0) ** (freedom - 1)
    passed = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return scale, angles, passed / passed[-1]
