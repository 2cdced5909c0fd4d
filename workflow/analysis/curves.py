"""Curves along pre-training: how far they rise, and the step beyond which they rise less.

What blurs a curve is twofold. The sampling of test rows and tuning seeds is known from resamples, and steps that are
tested on the same rows share it. What the training itself does between checkpoints is not: two steps that are 20 updates
apart can differ by many standard errors of their rows (arXiv 2408.06663: 738000 and 738020). It is estimated from what a
curve is off its fit, and taken to be independent from step to step and equally large at all of them.
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

PER = 100_000  # slopes are for so many steps
ROUNDING = 1e-20  # sums of squares of scores that are 0 but for rounding
CANDIDATES = 48  # knots that are tried between the first and the last that can be told apart
APART = 0.01  # steps closer than this share of the range are one place: between them no slope can be seen


@dataclass(frozen=True)
class Curve:
    """A model line or a change along pre-training. steps, values: shape (steps,), rising; draws: (steps, resamples)."""

    steps: Values
    values: Values
    draws: Values

    @cached_property
    def noise(self) -> Values:
        """Covariance of the values by their resamples, shape (steps, steps)."""
        return np.atleast_2d(np.cov(self.draws))


def curve(points: Sequence[Level | Difference], how: Resampling) -> Curve:
    """The curve through points that differ in their step alone; rows and seeds are resampled alike at all steps."""
    ordered = sorted(points, key=lambda point: point.keys["step"])
    steps = np.array([point.keys["step"] for point in ordered], dtype=float)
    return Curve(steps, np.array([p.value for p in ordered]), np.stack([p.resampled(how) for p in ordered]))


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and the error's degrees of freedom."""

    value: float
    error: float
    freedom: float

    def bounds(self, level: float) -> tuple[float, float]:
        """Two-sided interval by Student's t."""
        half = student_width(level, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def known(self) -> bool:
        """Whether its error is more than 0: one of 0 (all steps on the line, rows that are all alike) says nothing of chance."""
        return self.error**2 > ROUNDING

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value against 0; None where the error is not `known`."""
        return student_tail(self.value / self.error, self.freedom) if self.known else None

    def figures(self, level: float) -> dict[str, float | None]:
        """Value, ends of the interval and p-value, as columns of `tables.ANALYSIS`; null where the error is not `known`."""
        low, high = self.bounds(level) if self.known else (None, None)
        return {"value": self.value, "low": low, "high": high, "p_value": self.p_value}


@dataclass(frozen=True)
class Line:
    """Least squares of a curve on a straight line over some axis; three steps at least.

    weights: what each step's value counts in level at axis 0 and slope, shape (2, steps); scatter: variance between
    steps that the sampling of rows and seeds does not explain.
    """

    curve: Curve
    weights: Values
    residual: float
    unexplained: float
    freedom: int

    def combination(self, level: float, slope: float) -> Estimate:
        """`level` times the level plus `slope` times the slope.

        Its variance is what resamples say plus the scatter between steps, never less than the former; the degrees of
        freedom are those of the part that the residuals tell (Satterthwaite 1946).
        """
        weights = level * self.weights[0] + slope * self.weights[1]
        variance = float(weights @ self.curve.noise @ weights + weights @ weights * self.unexplained)
        seen = float(weights @ weights * self.residual)
        freedom = self.freedom * max(1.0, variance / seen) ** 2 if seen > 0 else np.inf
        return Estimate(float(weights @ self.curve.values), float(np.sqrt(variance)), freedom)


def line(curve: Curve, axis: Values) -> Line:
    """The straight line through a curve. axis: where its steps stand, shape (steps,)."""
    basis = np.stack([np.ones_like(axis), axis], axis=1)
    weights = np.linalg.pinv(basis)
    rest = np.eye(len(axis)) - basis @ weights
    freedom = len(axis) - 2
    residual = float(((rest @ curve.values) ** 2).sum()) / freedom
    return Line(curve, weights, residual, max(0.0, residual - float(np.trace(rest @ curve.noise)) / freedom), freedom)


def trend(curve: Curve) -> Estimate:
    """Slope of the straight line over steps, for 100,000 steps."""
    return line(curve, curve.steps / PER).combination(0, 1)


def unit(first: float, last: float) -> int:
    """The steps that slopes are quoted for in words: the power of ten that fits once into a range of steps."""
    return 10 ** int(np.log10(max(1.0, last - first)))


def progress(steps: Values) -> Values:
    """Steps on a logarithmic axis with a place for step 0: log10(1 + step / first step above 0).

    Scores rise by the order of magnitude of training: on this axis a line serves from the first steps to the last, and
    an untrained base stands one doubling before the first.
    """
    return np.log10(1 + steps / steps[steps > 0].min())


@dataclass(frozen=True)
class Slope:
    """A slope for 100,000 steps with interval and two-sided p-value against 0; None where a curve without noise fits exactly."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class Knot:
    """Where a curve bends: the step with its confidence set's ends, the p-value against a straight line, both slopes."""

    step: float
    low: float
    high: float
    p_value: float
    before: Slope
    after: Slope


@dataclass(frozen=True)
class Bends:
    """Continuous lines with one knot, over given steps.

    knots: the candidates, shape (knots,); rest: what they leave of a curve, shape (knots, steps, steps); slopes: what each
    step's value counts in the slope before and after, shape (2, knots, steps); straight: rest of the straight line.
    """

    knots: Values
    rest: Values
    slopes: Values
    straight: Values


@lru_cache
def bends(steps: tuple[float, ...]) -> Bends:
    """All lines with a knot from the second to the last step but one.

    A knot before the second step fits as well as one on it, since a single step is free then; the same at the end.
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
    """Steps that are apart: one that stands close behind another is no place of its own."""
    apart = APART * (steps[-1] - steps[0])
    places = [steps[0]]
    for step in steps[1:]:
        if step - places[-1] > apart:
            places.append(step)
    return places


def bendable(curve: Curve) -> bool:
    """Whether a knot can be looked for: five steps, of which three are apart."""
    return len(curve.steps) >= 5 and len(_places(tuple(curve.steps))) >= 3


@dataclass(frozen=True)
class Simulated:
    """Noise as a curve has it, and what each knot's line leaves of it.

    sampled, scattered: noise of rows and seeds, and of variance 1 between steps, shape (resamples, steps); squares: sums
    of the squares that the knots leave of the first, of the product of both, of the second, shape (3, knots, resamples).
    """

    sampled: Values
    scattered: Values
    squares: Values

    def left(self, scatter: float) -> Values:
        """Sums of squares that each knot's line leaves of pure noise, shape (knots, resamples)."""
        return self.squares[0] + 2 * scatter * self.squares[1] + scatter**2 * self.squares[2]


def simulations(curve: Curve, found: Bends, how: Resampling) -> Simulated:
    """Seeded draws of a curve's noise, and of the squares that each candidate knot leaves of them."""
    sampled, scattered = _noises(curve, how)
    first, second = (found.rest @ noise.T for noise in (sampled, scattered))
    squares = np.stack([(a * b).sum(axis=1) for a, b in ((first, first), (first, second), (second, second))])
    return Simulated(sampled, scattered, squares)


def noise_around(curve: Curve, rest: Values, freedom: int, how: Resampling) -> Values:
    """Noise as a curve has it around a fit, of rows, seeds and what scatters between steps, shape (resamples, steps).

    rest: what the fit leaves of a curve, shape (steps, steps); freedom: degrees of freedom of that.
    """
    left = ((rest @ curve.values) ** 2).sum()
    return drawn_noise(curve, float(_scatter(left, rest, curve.noise, freedom)), how)


def drawn_noise(curve: Curve, scatter: float | Values, how: Resampling) -> Values:
    """Noise of a curve's rows and seeds, and of a standard deviation between steps, shape (resamples, steps).

    scatter: of all resamples, or of each, shape (resamples, 1).
    """
    sampled, scattered = _noises(curve, how)
    return sampled + scatter * scattered


def _noises(curve: Curve, how: Resampling) -> tuple[Values, Values]:
    """Noise of rows and seeds, and of variance 1 between steps, both of shape (resamples, steps)."""
    generator = np.random.default_rng([how.seed, len(curve.steps)])
    shape = (how.resamples, len(curve.steps))
    spread, axes = np.linalg.eigh(curve.noise)
    sampled = generator.standard_normal(shape) * np.sqrt(np.maximum(spread, 0)) @ axes.T
    return sampled, generator.standard_normal(shape)


def knot(curve: Curve, how: Resampling) -> Knot:
    """The step where a curve bends, by least squares over all candidate knots.

    The confidence set of the step holds each candidate that a likelihood-ratio test does not refuse, its statistic being
    compared with that of curves simulated with the candidate's own fit and noise (as Hansen 2017 does for a regression kink
    with unknown threshold). Where it reaches the first or the last knot that can be told apart, it ends at the
    first or last step. Where a straight line fits as well, the set is the whole range. A slope's interval holds each
    value that fits with some knot (profile likelihood, F distribution), and is never narrower than rows and seeds make it.
    curve: `bendable`.
    """
    found = bends(tuple(curve.steps))
    left = ((found.rest @ curve.values) ** 2).sum(axis=1)
    best = int(left.argmin())
    scatter = _scatter(left, found.rest, curve.noise, len(curve.steps) - 3)
    simulated = simulations(curve, found, how)
    bent = _straight_p_value(curve, found, left[best], simulated, how.level)
    low, high = float(curve.steps[0]), float(curve.steps[-1])
    if bent <= 1 - how.level:
        accepted = _knot_p_values(curve, found, left, scatter, simulated, how.level) > 1 - how.level
        low, high = _ends(curve.steps, found.knots, accepted, best)
    before, after = (_slope(curve, found, weights, left, scatter, how.level) for weights in found.slopes)
    return Knot(float(found.knots[best]), low, high, bent, before, after)


def _scatter(left: Values, rest: Values, noise: Values, freedom: int) -> Values:
    """Standard deviation between steps beyond what resamples explain, for each sum of squares that is left."""
    explained = np.einsum("...ij,ji->...", rest, noise)
    return np.sqrt(np.maximum(0, left - explained) / freedom)


def _ratio(worse: Values, best: Values, least: float = 0.0) -> Values:
    """How much larger a sum of squares is than the best, which counts as `least` at least; 0 where rounding makes it so."""
    more = worse - best
    return np.where(more > ROUNDING, more, 0.0) / np.maximum(best, max(least, ROUNDING))


def _p_value(seen: tuple[float, float], drawn: tuple[Values, Values], level: float) -> float:
    """How often simulated curves fit that much worse than their best knot. seen, drawn: sums of squares, and the best.

    A best sum of squares that noise seldom leaves counts as one that it does: of a model that gives the same answers at
    most steps, the curve hardly scatters, which says little of the others.
    """
    least = float(np.quantile(drawn[1], 1 - level))
    worse = _ratio(*drawn, least) >= _ratio(np.array(seen[0]), np.array(seen[1]), least)
    return float((1 + worse.sum()) / (1 + len(worse)))


def _straight_p_value(curve: Curve, found: Bends, best: float, simulated: Simulated, level: float) -> float:
    """P-value of the straight line against the best knot, by simulation."""
    straight = ((found.straight @ curve.values) ** 2).sum()
    scatter = float(_scatter(straight, found.straight, curve.noise, len(curve.steps) - 2))
    noise = simulated.sampled + scatter * simulated.scattered
    drawn = ((noise @ found.straight) ** 2).sum(axis=1)
    return _p_value((straight, best), (drawn, simulated.left(scatter).min(axis=0)), level)


def _knot_p_values(
    curve: Curve, found: Bends, left: Values, scatter: Values, simulated: Simulated, level: float
) -> Values:
    """P-value of each candidate knot against the best one, by simulation of its own fit with noise."""
    fits = curve.values - found.rest @ curve.values
    p_values = np.empty(len(left))
    for place, (fit, own) in enumerate(zip(fits, scatter, strict=True)):
        missed = found.rest @ fit
        noise = simulated.sampled + own * simulated.scattered
        drawn = (missed**2).sum(axis=1)[:, None] + 2 * missed @ noise.T + simulated.left(own)
        p_values[place] = _p_value((left[place], left.min()), (drawn[place], drawn.min(axis=0)), level)
    return p_values


def _ends(steps: Values, knots: Values, accepted: NDArray[np.bool_], best: int) -> tuple[float, float]:
    """Ends of the confidence set: the nearest refused candidates, or the observed ends."""
    inside = np.flatnonzero(accepted | (np.arange(len(knots)) == best))
    ends = np.concatenate([steps[:1], knots, steps[-1:]])
    return float(ends[inside[0]]), float(ends[inside[-1] + 2])


def _slope(curve: Curve, found: Bends, weights: Values, left: Values, scatter: Values, level: float) -> Slope:
    """A slope at the best knot with the interval over all knots. weights: those of the slope, shape (knots, steps)."""
    best, freedom = int(left.argmin()), len(curve.steps) - 4
    slopes = weights @ curve.values
    # A slope that is off by d costs d^2 / spread in squares; what all steps share widens it and leaves no squares.
    sampled = np.maximum(np.einsum("ki,ij,kj->k", weights, curve.noise, weights), 0)
    squares = (weights**2).sum(axis=1)
    seen = np.einsum("kij,ji->k", found.rest, curve.noise) / (len(curve.steps) - 3) + scatter**2
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
