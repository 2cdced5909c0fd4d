"""Confidence intervals and p-values: closed form for scores and differences, seeded bootstrap for everything else.

A closed-form interval is a `Margins`: a function from confidence level to the distances from the estimate to both ends.
Margins of independent parts add in quadrature; those of a difference use the correlation of its two sides (Zou &
Donner 2008, "MOVER"; with score intervals of two proportions it is method 10 of Newcombe 1998). The interval and the p-value
come from the same margins, so they never contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts are imported when they are used: each start of Snakemake imports this module
from numpy.typing import NDArray

Values = NDArray[np.float64]
Margins = Callable[[float], tuple[float, float]]  # level of confidence -> how far below and above the estimate

BLOCK = 4_000_000  # multiplicities held at once: 32 MB, whatever the number of rows
# Multiplicities of one resampling that are cached, one byte each: drawing them takes most of the time. More are drawn in
# another way, seven times as fast, whenever they are needed.
KEPT = 16_000_000
NORMAL = 1e6  # degrees of freedom from which Student's t is the normal distribution
SMALLEST = 1e-12  # smallest p-value that is reported
ROUNDING = 1e-12  # margins and standard errors up to this count as 0
Limits = tuple[float, float]  # lowest and highest possible value
UNLIMITED: Limits = (-np.inf, np.inf)
SCORES: Limits = (0.0, 1.0)
POWER = 0.8  # power at the smallest detectable difference


@dataclass(frozen=True)
class Interval:
    """A point estimate with its standard error and confidence interval; n: number of units that were averaged or resampled."""

    value: float
    error: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Resampling:
    """Settings of a bootstrap: number of resamples, confidence level, seed."""

    resamples: int
    level: float
    seed: int

    def weights(self, n: int) -> Iterator[Values]:
        """How often each of n units occurs in each resample, in blocks of shape (at most `resamples`, n).

        Every call gives the same resamples, so statistics over the same units can be compared as pairs.
        """
        if self.resamples * n > KEPT:
            yield from _counted(self, n)
        else:
            whole, rows = _multiplicities(self, n), max(1, BLOCK // n)
            yield from (whole[start : start + rows].astype(float) for start in range(0, self.resamples, rows))

    def bounds(self, estimates: Values) -> tuple[float, float]:
        """Percentile interval of resampled estimates (Efron & Tibshirani 1993, section 13.3)."""
        tail = (1 - self.level) / 2
        low, high = np.quantile(estimates, [tail, 1 - tail])
        return float(low), float(high)

    def columns(self, estimates: Values) -> Values:
        """Percentile intervals of the columns of estimates, shape (resamples, n): lower and upper ends, shape (2, n)."""
        tail = (1 - self.level) / 2
        return np.quantile(estimates, [tail, 1 - tail], axis=0)

    def sums(self, columns: Values) -> Values:
        """Resampled sums of columns, shape (n, columns), from one set of resamples: shape (resamples, columns)."""
        contiguous = [np.ascontiguousarray(column) for column in columns.T]
        return np.concatenate(
            [np.stack([weights @ column for column in contiguous], axis=1) for weights in self.weights(len(columns))]
        )

    def means(self, values: Values) -> Values:
        """Resampled means of values, shape (n,), one for each resample."""
        return np.concatenate([weights @ values for weights in self.weights(len(values))]) / len(values)


def _drawn(resampling: Resampling, n: int) -> Iterator[Values]:
    """Blocks of multiplicities of n units, n of which are drawn with replacement for each resample."""
    generator, rows = np.random.default_rng(resampling.seed), max(1, BLOCK // n)
    for start in range(0, resampling.resamples, rows):
        size = min(rows, resampling.resamples - start)
        yield generator.multinomial(n, np.full(n, 1 / n), size=size).astype(float)


def _counted(resampling: Resampling, n: int) -> Iterator[Values]:
    """The same distribution as `_drawn`, for many units: each resample's n units are drawn one by one and counted."""
    generator, rows = np.random.default_rng(resampling.seed), max(1, BLOCK // n)
    for start in range(0, resampling.resamples, rows):
        units = (generator.integers(n, size=n, dtype=np.int32) for _ in range(min(rows, resampling.resamples - start)))
        yield np.stack([np.bincount(unit, minlength=n) for unit in units]).astype(float)


@lru_cache(maxsize=8)
def _multiplicities(resampling: Resampling, n: int) -> NDArray[np.uint8]:
    """All multiplicities of a resampling, cached since many samples have the same size; they stay below 256."""
    return np.concatenate([block.astype(np.uint8) for block in _drawn(resampling, n)])


def mean(values: Values, resampling: Resampling) -> Interval:
    """Mean of values, shape (n,), with its interval: in closed form where all lie between 0 and 1, else over resamples."""
    value = float(values.mean())
    if ((values >= 0) & (values <= 1)).all():
        return closed(value, float(values.std()) / len(values) ** 0.5, bounded(values), len(values), resampling.level)
    return interval(value, resampling.means(values), len(values), resampling)


def closed(value: float, error: float, margins: Margins, n: int, level: float) -> Interval:
    """An estimate with its standard error and the interval of its margins."""
    below, above = margins(level)
    return Interval(value, error, value - below, value + above, n)


def interval(value: float, resampled: Values, n: int, settings: Resampling) -> Interval:
    """An estimate with the standard error and percentile interval of its resamples, shape (resamples,)."""
    return Interval(value, float(resampled.std()), *settings.bounds(resampled), n)


def p_value(resampled: Values) -> float:
    """Two-sided bootstrap p-value against 0: twice the smaller share of resamples on one side, never below 2/(B+1)."""
    below, above = np.sum(resampled <= 0) + 1, np.sum(resampled >= 0) + 1
    return float(min(1.0, 2 * min(below, above) / (len(resampled) + 1)))


def holm(p_values: Values) -> Values:
    """Holm-adjusted p-values (Holm 1979), which control the family-wise error rate."""
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
    return float(scipy.special.stdtrit(min(freedom, NORMAL), (1 + level) / 2))


def student_tail(statistic: float, freedom: float) -> float:
    """Two-sided p-value of Student's t, never below SMALLEST."""
    return max(SMALLEST, float(2 * scipy.special.stdtr(min(freedom, NORMAL), -abs(statistic))))


def normal_width(level: float) -> float:
    """Half-width of the two-sided interval of a normal distribution, in standard errors."""
    return float(scipy.special.ndtri((1 + level) / 2))


def bounded(values: Values) -> Margins:
    """Margins of the mean of values between 0 and 1, shape (n,).

    If all values are 0 or 1, the mean is a share. Otherwise one row at 0 and one at 1 are added, since rare values may be missing
    among n rows (for example, a base that rarely writes a correct answer). Their mean and variance tell how many rows of 0
    and 1 would be as certain: never fewer than n + 2.
    """
    value, n = float(values.mean()), len(values)
    if ((values == 0) | (values == 1)).all():
        return share(value, n)
    padded = np.concatenate([values, [0.0, 1.0]])
    return share(value, effective_n(float(padded.mean()), float(padded.var()) / (n + 2)))


def effective_n(value: float, variance: float) -> float:
    """The number of rows of 0 and 1 whose mean `value` has this variance (Korn & Graubard 1998)."""
    return value * (1 - value) / variance if variance > 0 else np.inf


def share(value: float, n: float) -> Margins:
    """Margins of a share of n rows (Agresti & Coull 1998): coverage is at least .92 for a nominal .95 from 10 rows on,
    whatever the share; that of Wilson's interval, which it contains, falls to .84 near 0 and 1.
    """

    def margins(level: float) -> tuple[float, float]:
        if not np.isfinite(n):
            return 0.0, 0.0
        z = normal_width(level)
        centre, rows = (value * n + z * z / 2) / (n + z * z), n + z * z
        half = z * (centre * (1 - centre) / rows) ** 0.5
        return value - max(0.0, centre - half), min(1.0, centre + half) - value

    return margins


def normal(error: float, freedom: float = NORMAL) -> Margins:
    """Margins of an estimate with a standard error: normal, or Student's t where the error has few degrees of freedom."""

    def margins(level: float) -> tuple[float, float]:
        half = student_width(level, freedom) * error
        return half, half

    return margins


def together(*parts: Margins) -> Margins:
    """Margins of the sum of independent parts: their squares add up."""

    def margins(level: float) -> tuple[float, float]:
        below, above = zip(*(part(level) for part in parts), strict=True)
        return sum(one * one for one in below) ** 0.5, sum(one * one for one in above) ** 0.5

    return margins


def larger(*parts: Margins) -> Margins:
    """The wider of several margins of one estimate."""

    def margins(level: float) -> tuple[float, float]:
        below, above = zip(*(part(level) for part in parts), strict=True)
        return max(below), max(above)

    return margins


def correlation(first: Values, second: Values) -> float:
    """Correlation of two models' values on the same rows, both shape (n,); 0 where one of them is always the same.

    Two rows on which they differ are added, since models that agree on a few rows may differ on others.
    """
    n, spread = len(first), float(first.std() * second.std())
    if spread == 0:
        return 0.0
    coefficient = float(((first - first.mean()) * (second - second.mean())).mean()) / spread
    return (n * coefficient - 2) / (n + 2)


def apart(first: Margins, second: Margins, correlation: float = 0.0) -> Margins:
    """Margins of the difference first minus second; correlation: of the two estimates (Zou & Donner 2008, equation 7)."""

    def margins(level: float) -> tuple[float, float]:
        (low, high), (other_low, other_high) = first(level), second(level)
        below = low * low + other_high * other_high - 2 * correlation * low * other_high
        above = high * high + other_low * other_low - 2 * correlation * high * other_low
        return max(0.0, below) ** 0.5, max(0.0, above) ** 0.5

    return margins


def informative(margins: Margins) -> bool:
    """Whether margins are larger than 0. Margins of 0 (a standard error of 0, identical rows, a single row) mean that the
    uncertainty is unknown, not that the value is certain."""
    return max(margins(0.5)) > ROUNDING


def ends(
    value: float, margins: Margins, level: float, limits: Limits = UNLIMITED
) -> tuple[float, float] | tuple[None, None]:
    """Ends of the interval of a value; None where its uncertainty is unknown (`informative`).

    The interval is cut to the possible values. Its coverage stays the same, since the true value is one of them.
    """
    if not informative(margins):
        return None, None
    below, above = margins(level)
    return max(value - below, limits[0]), min(value + above, limits[1])


def limits_apart(first: Limits, second: Limits) -> Limits:
    """Limits of the difference first minus second."""
    return first[0] - second[1], first[1] - second[0]


def tested(value: float, margins: Margins) -> float | None:
    """Two-sided p-value of a value against 0: 1 minus the largest level at which the interval excludes 0.

    Found by bisection on the log scale; at least SMALLEST. 1 for a value of 0; None if its uncertainty is unknown
    (`informative`).
    """
    if not informative(margins):
        return None
    if value == 0:
        return 1.0
    side = 0 if value > 0 else 1
    if margins(1 - SMALLEST)[side] < abs(value):
        return SMALLEST
    low, high = np.log(SMALLEST), 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if margins(1 - np.exp(middle))[side] < abs(value) else (middle, high)
    return float(np.exp(high))


def detectable(error: float, level: float, freedom: float = NORMAL) -> float:
    """The smallest difference that a two-sided test detects with power POWER. error: standard error of the difference; level:
    1 - significance level."""
    return (student_width(level, freedom) + student_width(2 * POWER - 1, freedom)) * error
