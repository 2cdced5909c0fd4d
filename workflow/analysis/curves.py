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

    knots: the candidates, shape (knots,); rest: projections on their residuals, shape (knots, steps, steps); slopes: weights
    of each step's value in the slope before and after, shape (2, knots, steps); straight: projection on the residuals of the
    straight line.
    """

    knots: Values
    rest: Values
    slopes: Values
    straight: Values


@lru_cache
def bends(steps: tuple[float, ...]) -> Bends:
    """All lines with a knot from the second step to the last but one.

    A knot before the second step fits as well as one on it, because a single step is then free; the same holds at the end.
    """
    x, places = np.array(steps), _places(steps)
    knots = np.union1d(np.linspace(places[1], places[-2], CANDIDATES), places[1:-1])
    shape = (len(knots), len(x))
    beyond = np.maximum(x - knots[:, None], 0)
    basis = np.stack([np.ones(shape), np.broadcast_to(x, shape) / PER, beyond / PER], axis=-1)
    weights = np.linalg.pinv(basis)
    slopes = np.stack([weights[:, 1], weights[:, 1] + weights[:, 2]])
    flat = basis[0, :, :2]
    whole = np.eye(len(x))
    return Bends(knots, whole - basis @ weights, slopes, whole - flat @ np.linalg.pinv(flat))


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
    """Simulated noise of a curve, and the residuals of each knot's line on it.

    sampled, scattered: noise of rows and seeds, and of variance 1 between steps, shape (resamples, steps); squares: residual
    sums of squares of the first, of the product of both, and of the second, shape (3, knots, resamples).
    """

    sampled: Values
    scattered: Values
    squares: Values

    def left(self, scatter: float) -> Values:
        """Residual sums of squares of each knot's line on pure noise, shape (knots, resamples)."""
        return self.squares[0] + 2 * scatter * self.squares[1] + scatter**2 * self.squares[2]


def simulations(curve: Curve, candidates: Bends, resampling: Resampling) -> Simulated:
    """Seeded draws of a curve's noise, and the residual sums of squares of each candidate knot."""
    sampled, scattered = _noises(curve, resampling)
    first, second = (candidates.rest @ noise.T for noise in (sampled, scattered))
    squares = np.stack([(a * b).sum(axis=1) for a, b in ((first, first), (first, second), (second, second))])
    return Simulated(sampled, scattered, squares)


def noise_around(curve: Curve, rest: Values, freedom: int, resampling: Resampling) -> Values:
    """Simulated noise of a curve around a fit: rows, seeds and scatter between steps, shape (resamples, steps).

    rest: projection on the fit's residuals, shape (steps, steps); freedom: its degrees of freedom.
    """
    left = ((rest @ curve.values) ** 2).sum()
    return drawn_noise(curve, float(_scatter(left, rest, curve.noise, freedom)), resampling)


def drawn_noise(curve: Curve, scatter: float | Values, resampling: Resampling) -> Values:
    """Simulated noise of a curve's rows and seeds, and of a standard deviation between steps, shape (resamples, steps).

    scatter: of all resamples, or of each, shape (resamples, 1).
    """
    sampled, scattered = _noises(curve, resampling)
    return sampled + scatter * scattered


def _noises(curve: Curve, resampling: Resampling) -> tuple[Values, Values]:
    """Noise of rows and seeds, and of variance 1 between steps, both of shape (resamples, steps)."""
    generator = np.random.default_rng([resampling.seed, len(curve.steps)])
    shape = (resampling.resamples, len(curve.steps))
    spread, axes = np.linalg.eigh(curve.noise)
    sampled = generator.standard_normal(shape) * np.sqrt(np.maximum(spread, 0)) @ axes.T
    return sampled, generator.standard_normal(shape)


def knot(curve: Curve, resampling: Resampling) -> Knot:
    """The step where a curve bends, by least squares over all candidate knots.

    The confidence set has each candidate that a likelihood-ratio test does not reject. The statistic is compared with that
    of curves simulated with the candidate's own fit and noise (as in Hansen 2017 for a regression kink with unknown
    threshold). If the set reaches the first or last distinguishable knot, it ends at the first or last step. If a straight
    line fits as well, the set is the whole range. The interval of a slope has each value that fits with some knot (profile
    likelihood, F distribution), and is never narrower than rows and seeds make it. curve: `bendable`.
    """
    candidates = bends(tuple(curve.steps))
    left = ((candidates.rest @ curve.values) ** 2).sum(axis=1)
    best = int(left.argmin())
    scatter = _scatter(left, candidates.rest, curve.noise, len(curve.steps) - 3)
    simulated = simulations(curve, candidates, resampling)
    bent = _straight_p_value(curve, candidates, left[best], simulated, resampling.level)
    low, high = float(curve.steps[0]), float(curve.steps[-1])
    if bent <= 1 - resampling.level:
        accepted = _knot_p_values(curve, candidates, left, scatter, simulated, resampling.level) > 1 - resampling.level
        low, high = _ends(curve.steps, candidates.knots, accepted, best)
    before, after = (
        _slope(curve, candidates, weights, left, scatter, resampling.level) for weights in candidates.slopes
    )
    return Knot(float(candidates.knots[best]), low, high, bent, before, after)


def _scatter(left: Values, rest: Values, noise: Values, freedom: int) -> Values:
    """Standard deviation between steps beyond what resamples explain, for each residual sum of squares."""
    explained = np.einsum("...ij,ji->...", rest, noise)
    return np.sqrt(np.maximum(0, left - explained) / freedom)


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
    straight = ((candidates.straight @ curve.values) ** 2).sum()
    scatter = float(_scatter(straight, candidates.straight, curve.noise, len(curve.steps) - 2))
    noise = simulated.sampled + scatter * simulated.scattered
    drawn = ((noise @ candidates.straight) ** 2).sum(axis=1)
    return _p_value((straight, best), (drawn, simulated.left(scatter).min(axis=0)), level)


def _knot_p_values(
    curve: Curve, candidates: Bends, left: Values, scatter: Values, simulated: Simulated, level: float
) -> Values:
    """P-value of each candidate knot against the best one, by simulation of the candidate's fit with noise."""
    fits = curve.values - candidates.rest @ curve.values
    p_values = np.empty(len(left))
    for index, (fit, scattered) in enumerate(zip(fits, scatter, strict=True)):
        missed = candidates.rest @ fit
        noise = simulated.sampled + scattered * simulated.scattered
        drawn = (missed**2).sum(axis=1)[:, None] + 2 * missed @ noise.T + simulated.left(scattered)
        p_values[index] = _p_value((left[index], left.min()), (drawn[index], drawn.min(axis=0)), level)
    return p_values


def _ends(steps: Values, knots: Values, accepted: NDArray[np.bool_], best: int) -> tuple[float, float]:
    """Ends of the confidence set: the nearest rejected candidates, or the first or last step."""
    inside = np.flatnonzero(accepted | (np.arange(len(knots)) == best))
    ends = np.concatenate([steps[:1], knots, steps[-1:]])
    return float(ends[inside[0]]), float(ends[inside[-1] + 2])


def _slope(curve: Curve, candidates: Bends, weights: Values, left: Values, scatter: Values, level: float) -> Slope:
    """A slope at the best knot with the interval over all knots. weights: those of the slope, shape (knots, steps)."""
    best, freedom = int(left.argmin()), len(curve.steps) - 4
    slopes = weights @ curve.values
    # A slope error of d adds d^2 / spread to the squares; noise that all steps share widens the interval but adds no squares.
    sampled = np.maximum(np.einsum("ki,ij,kj->k", weights, curve.noise, weights), 0)
    squares = (weights**2).sum(axis=1)
    seen = np.einsum("kij,ji->k", candidates.rest, curve.noise) / (len(curve.steps) - 3) + scatter**2
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
