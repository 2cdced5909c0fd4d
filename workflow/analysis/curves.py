"""Curves along pre-training: slopes, and the step beyond which they rise less.

A curve has two kinds of noise. The sampling of test rows and fine-tuning seeds is known from resamples, and is shared by
steps that are tested on the same rows. The scatter of the training itself between checkpoints is not: two steps that are 20
updates apart can differ by many standard errors of their rows (arXiv 2408.06663: 738000 and 738020). It is estimated from
the residuals of a fit, and assumed to be independent from step to step and equally large at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from workflow.analysis.evidence import Difference, Level
from workflow.analysis.fits import Fits, fits, remaining
from workflow.statistics import Resampling, student_tail, student_width

Values = NDArray[np.float64]

PER = 100_000  # slopes are per this number of steps
ROUNDING = 1e-20  # sums of squares that are 0 except for rounding
CANDIDATES = 48  # candidate knots between the first and the last distinguishable one
APART = 0.01  # steps closer than this share of the range count as one: no slope between them can be estimated


@dataclass(frozen=True)
class Curve:
    """Scores or changes along pre-training.

    steps, values: shape (steps,), steps ascending; draws: (steps, resamples).
    """

    steps: Values
    values: Values
    draws: Values

    @cached_property
    def noise(self) -> Values:
        """Covariance of the values by their resamples, shape (steps, steps)."""
        return np.atleast_2d(np.cov(self.draws))


def curve(points: Sequence[Level | Difference], resampling: Resampling) -> Curve:
    """The curve through points that differ only in their step. Rows and seeds are resampled alike at all steps."""
    ordered = sorted(points, key=lambda point: point.keys["step"])
    steps = np.array([point.keys["step"] for point in ordered], dtype=float)
    return Curve(steps, np.array([p.value for p in ordered]), np.stack([p.resampled(resampling) for p in ordered]))


def improvement(points: Sequence[Level | Difference], resampling: Resampling) -> Curve | None:
    """The curve with more as better: its sign is changed where less of the metric is better. None if neither is."""
    line, way = curve(points, resampling), better(points[0])
    return Curve(line.steps, -line.values, -line.draws) if way == "lower" else line if way else None


def better(point: Level | Difference) -> str | None:
    """Whether `higher` or `lower` values of the metric of a level or of a difference are better; None for neither."""
    level = point.first if isinstance(point, Difference) else point
    return better(level) if isinstance(level, Difference) else level.better


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and the error's degrees of freedom."""

    value: float
    error: float
    freedom: float

    def bounds(self, level: float) -> tuple[float, float]:
        """Two-sided interval of Student's t."""
        half = student_width(level, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def known(self) -> bool:
        """Whether the standard error is above 0.

        An error of 0 (all steps on the line, identical rows) means that the noise is unknown.
        """
        return self.error**2 > ROUNDING

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value against 0; None if the error is not `known`."""
        return student_tail(self.value / self.error, self.freedom) if self.known else None

    def figures(self, level: float) -> dict[str, float | None]:
        """Value, ends of the interval and p-value, as columns of `tables.ANALYSIS`; null if the error is not `known`."""
        low, high = self.bounds(level) if self.known else (None, None)
        return {"value": self.value, "low": low, "high": high, "p_value": self.p_value}


@dataclass(frozen=True)
class Line:
    """Least-squares fit of a straight line over some axis, to at least three steps.

    weights: of each step's value in the level at axis 0 and in the slope, shape (2, steps); scatter: variance between steps
    that the sampling of rows and seeds does not explain.
    """

    curve: Curve
    weights: Values
    residual: float
    unexplained: float
    freedom: int

    def combination(self, level: float, slope: float) -> Estimate:
        """`level` times the level plus `slope` times the slope.

        Its variance is that of resamples plus the scatter between steps, never less than the former. The degrees of freedom
        are those of the part that comes from residuals (Satterthwaite 1946).
        """
        weights = level * self.weights[0] + slope * self.weights[1]
        variance = float(weights @ self.curve.noise @ weights + weights @ weights * self.unexplained)
        seen = float(weights @ weights * self.residual)
        freedom = self.freedom * max(1.0, variance / seen) ** 2 if seen > 0 else np.inf
        return Estimate(float(weights @ self.curve.values), float(np.sqrt(variance)), freedom)


def line(curve: Curve, axis: Values) -> Line:
    """The straight line through a curve. axis: positions of its steps, shape (steps,)."""
    basis = np.stack([np.ones_like(axis), axis], axis=1)
    weights = np.linalg.pinv(basis)
    rest = np.eye(len(axis)) - basis @ weights
    freedom = len(axis) - 2
    residual = float(((rest @ curve.values) ** 2).sum()) / freedom
    return Line(curve, weights, residual, max(0.0, residual - float(np.trace(rest @ curve.noise)) / freedom), freedom)


def trend(curve: Curve) -> Estimate:
    """Slope of the straight line over steps, per 100,000 steps."""
    return line(curve, curve.steps / PER).combination(0, 1)


def unit(first: float, last: float) -> int:
    """The number of steps that slopes are stated for in sentences: the largest power of ten within the range of steps."""
    return 10 ** int(np.log10(max(1.0, last - first)))


def progress(steps: Values) -> Values:
    """Steps on a logarithmic axis that includes step 0: log10(1 + step / first step above 0).

    Scores rise with the order of magnitude of training. On this axis a line fits from the first steps to the last, and an
    untrained base is one doubling before the first.
    """
    return np.log10(1 + steps / steps[steps > 0].min())


@dataclass(frozen=True)
class Slope:
    """A slope per 100,000 steps with interval and two-sided p-value against 0; None if a curve without noise fits exactly."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class Knot:
    """The bend of a curve: the step with the ends of its confidence set, the p-value against a straight line, both slopes."""

    step: float
    low: float
    high: float
    p_value: float
    before: Slope
    after: Slope


@dataclass(frozen=True)
class Bends:
    """Continuous lines with one knot, over given steps.

    knots: the candidates, shape (knots,); fits: the straight line, and what each knot adds to it; slopes: weights of each
    step's value in the slope before and after, shape (2, knots, steps).
    """

    knots: Values
    fits: Fits
    slopes: Values


@lru_cache
def bends(steps: tuple[float, ...]) -> Bends:
    """All lines with a knot from the second step to the last but one.

    A knot before the second step fits as well as one on it, because a single step is then free; the same holds at the end.
    """
    x, places = np.array(steps), _places(steps)
    knots = np.union1d(np.linspace(places[1], places[-2], CANDIDATES), places[1:-1])
    straight = np.stack([np.ones(len(x)), x / PER], axis=-1)
    beyond = np.maximum(x - knots[:, None], 0) / PER
    basis = np.concatenate([np.broadcast_to(straight, (len(knots), *straight.shape)), beyond[..., None]], axis=-1)
    weights = np.linalg.pinv(basis)
    slopes = np.stack([weights[:, 1], weights[:, 1] + weights[:, 2]])
    return Bends(knots, fits(straight, beyond), slopes)


def _places(steps: Sequence[float]) -> list[float]:
    """Steps that are apart: a step close after another does not count separately."""
    apart = APART * (steps[-1] - steps[0])
    places = [steps[0]]
    for step in steps[1:]:
        if step - places[-1] > apart:
            places.append(step)
    return places


def bendable(curve: Curve) -> bool:
    """Whether a knot can be estimated: five steps, of which three are apart."""
    return len(curve.steps) >= 5 and len(_places(tuple(curve.steps))) >= 3


@dataclass(frozen=True)
class Simulated:
    """Simulated noise of a curve, and what a straight line and each bend leave of it.

    sampled, scattered: noise of rows and seeds, and of variance 1 between steps, shape (resamples, steps); straight: residual
    sums of squares of a straight line, of the first, of the product of both, and of the second, shape (3, resamples); bent:
    products of each bend's unit vector with both, shape (2, knots, resamples).
    """

    sampled: Values
    scattered: Values
    straight: Values
    bent: Values

    def left_by_line(self, scatter: float) -> Values:
        """Residual sums of squares of the straight line on pure noise, shape (resamples,)."""
        return self.straight[0] + 2 * scatter * self.straight[1] + scatter**2 * self.straight[2]

    def left(self, scatter: float) -> Values:
        """Residual sums of squares of each knot's line on pure noise, shape (knots, resamples)."""
        return remaining(self.left_by_line(scatter), (self.bent[0] + scatter * self.bent[1]) ** 2)


def simulations(curve: Curve, candidates: Bends, resampling: Resampling) -> Simulated:
    """Seeded draws of a curve's noise, and what the straight line and each candidate knot leave of it."""
    sampled, scattered = _noises(curve, resampling)
    first, second = (candidates.fits.beyond(noise.T) for noise in (sampled, scattered))
    straight = np.stack([(a * b).sum(axis=0) for a, b in ((first, first), (first, second), (second, second))])
    bent = np.stack([candidates.fits.own @ rest for rest in (first, second)])
    return Simulated(sampled, scattered, straight, bent)


def scatter_between(left: Values, expected: Values, freedom: int) -> Values:
    """Standard deviation between steps beyond what resamples explain, for each residual sum of squares.

    expected: the same sum for noise of resamples alone; freedom: degrees of freedom of the fit.
    """
    return np.sqrt(np.maximum(0, left - expected) / freedom)


def drawn_noise(curve: Curve, scatter: float | Values, resampling: Resampling) -> Values:
    """Simulated noise of a curve's rows and seeds, and of a standard deviation between steps, shape (resamples, steps).

    scatter: of all resamples, or of each, shape (resamples, 1).
    """
    sampled, scattered = _noises(curve, resampling)
    return sampled + scatter * scattered


def _noises(curve: Curve, resampling: Resampling) -> tuple[Values, Values]:
    """Noise of rows and seeds, and of variance 1 between steps, both of shape (resamples, steps)."""
    first, second = _normal(resampling.seed, (resampling.resamples, len(curve.steps)))
    spread, axes = np.linalg.eigh(curve.noise)
    return first * np.sqrt(np.maximum(spread, 0)) @ axes.T, second


@lru_cache(maxsize=8)
def _normal(seed: int, shape: tuple[int, int]) -> tuple[Values, Values]:
    """Two samples of the standard normal distribution, the same for all curves with as many steps."""
    generator = np.random.default_rng([seed, shape[1]])
    return generator.standard_normal(shape), generator.standard_normal(shape)


def knot(curve: Curve, resampling: Resampling) -> Knot:
    """The step where a curve bends, by least squares over all candidate knots.

    The confidence set has each candidate that a likelihood-ratio test does not reject. The statistic is compared with that
    of curves simulated with the candidate's own fit and noise (as in Hansen 2017 for a regression kink with unknown
    threshold). If the set reaches the first or last distinguishable knot, it ends at the first or last step. If a straight
    line fits as well, the set is the whole range. The interval of a slope has each value that fits with some knot (profile
    likelihood, F distribution), and is never narrower than rows and seeds make it. curve: `bendable`.
    """
    candidates = bends(tuple(curve.steps))
    left, expected = candidates.fits.squares(curve.values), candidates.fits.expected(curve.noise)
    best, freedom = int(left.argmin()), len(curve.steps) - 3
    scatter = scatter_between(left, expected, freedom)
    simulated = simulations(curve, candidates, resampling)
    bent = _straight_p_value(curve, candidates, left[best], simulated, resampling.level)
    low, high = float(curve.steps[0]), float(curve.steps[-1])
    if bent <= 1 - resampling.level:
        accepted = _knot_p_values(curve, candidates, left, scatter, simulated, resampling.level) > 1 - resampling.level
        low, high = _ends(curve.steps, candidates.knots, accepted, best)
    seen = expected / freedom + scatter**2
    before, after = (_slope(curve, weights, left, scatter, seen, resampling.level) for weights in candidates.slopes)
    return Knot(float(candidates.knots[best]), low, high, bent, before, after)


def _ratio(worse: Values, best: Values, least: float = 0.0) -> Values:
    """Excess of a sum of squares over the best, relative to the best, which counts as at least `least`; 0 if the excess is
    only rounding.
    """
    more = worse - best
    return np.where(more > ROUNDING, more, 0.0) / np.maximum(best, max(least, ROUNDING))


def _p_value(seen: tuple[float, float], drawn: tuple[Values, Values], level: float) -> float:
    """Share of simulated curves that fit worse than their best knot by at least as much. seen, drawn: sums of squares, and
    the best.

    A best sum of squares that noise seldom leaves is replaced by a common one: if a model gives the same answers at most
    steps, its curve hardly scatters, which says little about the other steps.
    """
    least = float(np.quantile(drawn[1], 1 - level))
    worse = _ratio(*drawn, least) >= _ratio(np.array(seen[0]), np.array(seen[1]), least)
    return float((1 + worse.sum()) / (1 + len(worse)))


def _straight_p_value(curve: Curve, candidates: Bends, best: float, simulated: Simulated, level: float) -> float:
    """P-value of the straight line against the best knot, by simulation."""
    line_alone = candidates.fits.without_own()
    straight, expected = line_alone.squares(curve.values)[0], line_alone.expected(curve.noise)[0]
    scatter = float(scatter_between(straight, expected, len(curve.steps) - 2))
    drawn = simulated.left_by_line(scatter), simulated.left(scatter).min(axis=0)
    return _p_value((straight, best), drawn, level)


def _knot_p_values(
    curve: Curve, candidates: Bends, left: Values, scatter: Values, simulated: Simulated, level: float
) -> Values:
    """P-value of each candidate knot against the best one, by simulation of the candidate's fit with noise.

    Beyond the straight line, a candidate's fit is a multiple of its own unit vector, so what each knot explains of a
    simulated curve is the square of one number: the product of its vector with that fit and with the noise.
    """
    own = candidates.fits.own
    heights, products = own @ candidates.fits.beyond(curve.values), own @ own.T
    p_values, explained = np.empty(len(left)), np.empty_like(simulated.bent[0])
    for index, (height, scattered) in enumerate(zip(heights, scatter, strict=True)):
        np.multiply(simulated.bent[1], scattered, out=explained)
        explained += simulated.bent[0]
        own_left = remaining(simulated.left_by_line(scattered), explained[index] ** 2)
        explained += height * products[index][:, None]
        most = np.maximum(explained.max(axis=0), -explained.min(axis=0))
        best_left = np.maximum(0, own_left - (most**2 - explained[index] ** 2))
        p_values[index] = _p_value((left[index], left.min()), (own_left, best_left), level)
    return p_values


def _ends(steps: Values, knots: Values, accepted: NDArray[np.bool_], best: int) -> tuple[float, float]:
    """Ends of the confidence set: the nearest rejected candidates, or the first or last step."""
    inside = np.flatnonzero(accepted | (np.arange(len(knots)) == best))
    ends = np.concatenate([steps[:1], knots, steps[-1:]])
    return float(ends[inside[0]]), float(ends[inside[-1] + 2])


def _slope(curve: Curve, weights: Values, left: Values, scatter: Values, seen: Values, level: float) -> Slope:
    """A slope at the best knot with the interval over all knots.

    weights: those of the slope, shape (knots, steps); left, scatter, seen: residual sum of squares of each knot, standard
    deviation between steps, and mean square that both kinds of noise lead to, shape (knots,).
    """
    best, freedom = int(left.argmin()), len(curve.steps) - 4
    slopes = weights @ curve.values
    # A slope error of d adds d^2 / spread to the squares; noise that all steps share widens the interval but adds no squares.
    sampled = np.maximum(((weights @ curve.noise) * weights).sum(axis=1), 0)
    squares = (weights**2).sum(axis=1)
    widening = np.divide(sampled / squares + scatter**2, seen, out=np.ones(len(left)), where=seen > ROUNDING)
    spread = squares * np.maximum(widening, 1)
    room = left[best] * (1 + student_width(level, freedom) ** 2 / freedom) - left
    half = np.sqrt(spread * np.maximum(room, 0))
    least = student_width(level, np.inf) * np.sqrt(sampled[best])
    low = min((slopes - half)[room >= 0].min(), slopes[best] - least)
    high = max((slopes + half)[room >= 0].max(), slopes[best] + least)
    cost = float(_ratio(np.min(left + slopes**2 / spread), left[best]))
    tested = student_tail(np.sqrt(freedom * cost), freedom)
    if sampled[best] > ROUNDING:
        tested = max(tested, student_tail(slopes[best] / np.sqrt(sampled[best]), np.inf))
    if (high - low) ** 2 <= ROUNDING:
        return Slope(float(slopes[best]), None, None, None)
    return Slope(float(slopes[best]), float(low), float(high), tested)
