"""Forecasts of scores at a later step of pre-training, from the steps so far, with an interval.

Learning curves and simple baselines forecast side by side. Their weights are learned from the study: its curves are cut off
at earlier steps and forecast as far ahead as requested (rolling origin, Tashman 2000). The weights minimise the squared
error of the combination on all curves of a sort (stacking, Breiman 1996), shrunk towards equal weights, which are hard to
beat with little data (Smith & Wallis 2009). The interval comes from the errors on those steps, not from a model. There is no
forecast if the combination is not significantly better on held-out steps than the last value, or not better than a line in
log steps. There is none either if the last steps are below the forecast from earlier ones, because the run may have turned
down (`shortfall`).

Nothing foresees a decline that begins after the last step, so the interval allows for one: its worse end lies further out by
what a run that turns down loses (FALL). A run that goes on then ends hardly ever beyond the worse end, so the better end may
leave out more than half of what the level allows (BETTER). The coverage of both sorts of run is shown by
`benchmarks/pretraining.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from workflow.analysis.laws import LAWS, fits_of, scaled
from workflow.statistics import ROUNDING, student_tail

Values = NDArray[np.float64]

RECENT = (3, 5)  # numbers of last steps whose mean is a forecast
LINES = (
    np.inf,
    100,
    10,
    5,
)  # lines in log steps are fitted to all steps, or to those from a hundredth, tenth, fifth of the last one on
SMOOTH = ("power_law", "saturating_exponential", "log_sigmoid")
WINDOW = 100  # the same for laws: the chance level of an untrained model tells nothing about later steps
FEWEST = 4  # fewest steps for a forecast, and fewest curves for its error
REACH = 1.6  # held-out steps are as far ahead as requested, in log steps, within this factor
ORIGINS = 4  # curves are cut off at steps from a quarter of the last one on, where they are similar to their end
CUTS = 3  # fewest cuts: all errors after one share the scatter of its last step, and with two 80 % intervals held in 42 to 63 %
TOWARDS_EQUAL = 1.0  # weight of equal shares beside the errors of the best forecaster
FOLDS = 5
# What a score from 0 to 1 loses at each doubling of steps in a run that turns down: 9 of the 11 significant declines of
# Pythia-70m and -160m (zero and five shots) are slower, .04 on average.
FALL = 0.06
FALL_IN_MARGINS = (
    2.0  # the same for other metrics, in margins of the worse end without it: about FALL on Pythia's scores
)
BETTER = 0.75  # held-out errors beyond the better end, as a share of 1 - level
TURN = 2  # a run may have turned at the steps from the last one divided by this on
LAST, LINE = "last_value", "line"  # in log steps
FORECASTERS = (
    LAST,
    *(f"mean_of_{n}" for n in RECENT),
    *(LINE if n == np.inf else f"line_over_{n}" for n in LINES),
    *SMOOTH,
)


@dataclass(frozen=True)
class Forecast:
    """Scores of several curves at one later step.

    values, low, high: shape (curves,), the worse end beyond a possible decline; gain: share by which the squared error on
    held-out steps is below that of the last value; p_value: one-sided, of no gain, 1 if a line in log steps does as well; held:
    number of held-out steps of each curve; fallen: p-value of no `shortfall`.
    """

    values: Values
    low: Values
    high: Values
    gain: float
    p_value: float
    held: int
    fallen: float


def forecast(
    steps: Values, values: Values, at: float, level: float, sign: int = 1, fall: float | None = FALL
) -> Forecast | None:
    """Scores of `Series` at a later step."""
    return Series(steps, values).forecast(at, level, sign, fall)


class Series:
    """Curves of one sort over the same steps, with the errors of forecasts from earlier steps.

    steps: shape (steps,), ascending; values: shape (curves, steps).
    """

    def __init__(self, steps: Values, values: Values) -> None:
        """Nothing is fitted yet."""
        self.steps, self.values = steps, values

    @cached_property
    def _off(self) -> dict[int, Values]:
        """Scaled errors at all steps after a cut: number of steps before it -> shape (forecasters, curves, steps after it)."""
        return {
            cut: (self.values[:, cut:] - forecasts(self.steps[:cut], self.values[:, :cut], self.steps[cut:]))
            / _positive(scale(self.steps[:cut], self.values[:, :cut]))[:, None]
            for cut in range(FEWEST, len(self.steps))
            if self.steps[cut - 1] >= self.steps[-1] / ORIGINS
        }

    def forecast(self, at: float, level: float, sign: int = 1, fall: float | None = FALL) -> Forecast | None:
        """Scores at a later step; None if the error is unknown: too few curves, or no held-out steps that far ahead.

        level: of the interval; sign: -1 if less is better; fall: loss of a run that turns down, for each doubling of steps;
        None: FALL_IN_MARGINS.
        """
        trials = list(self._trials(np.log(at / self.steps[-1]))) if len(self.values) >= FEWEST else []
        if len(trials) < CUTS:
            return None
        errors = np.concatenate(trials, axis=-1)
        crossed = crossed_weights(errors)
        combined = np.einsum("fc,fct->ct", crossed, errors)
        gain, p_value = _gain(errors[0], combined)
        if _gain(errors[FORECASTERS.index(LINE)], combined)[0] <= 0:
            p_value = 1.0
        centre = stacked(_condensed(errors), combined.size) @ forecasts(self.steps, self.values, np.array([at]))[..., 0]
        worse, better = self._margins(np.abs(combined), level, np.log2(at / self.steps[-1]), fall)
        below, above = (worse, better) if sign > 0 else (better, worse)
        fallen = self._shortfall(crossed, sign)
        return Forecast(centre, centre - below, centre + above, gain, p_value, combined.shape[1], fallen)

    def _margins(self, errors: Values, level: float, doublings: float, fall: float | None) -> tuple[Values, Values]:
        """Distances of the worse and of the better end from the forecasts, shape (curves,). errors: absolute and scaled."""
        spread = scale(self.steps, self.values)
        worse = _quantile(errors, level) * spread
        lost = FALL_IN_MARGINS * worse if fall is None else fall
        return worse + lost * doublings, _quantile(errors, 1 - 2 * BETTER * (1 - level)) * spread

    def _trials(self, ahead: float) -> Iterator[Values]:
        """Errors on held-out steps at about the requested distance, in log steps, after each cut that has such steps: shape
        (forecasters, curves, steps).
        """
        for cut, off in self._off.items():
            distance = np.log(self.steps[cut:] / self.steps[cut - 1])
            reached = (ahead / REACH <= distance) & (distance <= ahead * REACH)
            if reached.any():
                yield off[..., reached]

    def _shortfall(self, weights: Values, sign: int) -> float:
        """One-sided p-value of no decline in the last steps beyond the forecast from earlier ones.

        The run is cut off at each step in its second half. The errors after each cut, averaged for each curve and tested by
        Student's t over curves, are below 0 if the run has turned down. The result is the smallest p-value, multiplied by
        the number of cuts (Bonferroni). weights: of each curve's combination, learned from other curves, shape (forecasters,
        curves); sign: -1 if less is better.
        """
        behind = [
            sign * np.einsum("fc,fct->ct", weights, off).mean(axis=1)
            for cut, off in self._off.items()
            if self.steps[cut - 1] >= self.steps[-1] / TURN
        ]
        return min(1.0, len(behind) * min(map(_below, behind), default=1.0))


def _below(errors: Values) -> float:
    """One-sided p-value of a mean of 0 against one below, by Student's t over curves."""
    error = float(errors.std(ddof=1)) / len(errors) ** 0.5
    if not error > ROUNDING:
        return 1.0
    tail = student_tail(float(errors.mean()) / error, len(errors) - 1) / 2
    return tail if errors.mean() < 0 else 1 - tail


def _positive(scatter: Values) -> Values:
    """A scatter to divide by; 1 if curves do not scatter."""
    return np.where(scatter > 0, scatter, 1.0)


def forecasts(steps: Values, values: Values, later: Values) -> Values:
    """Forecast of each of FORECASTERS for later steps, shape (forecasters, curves, later steps).

    steps: shape (steps,); values: shape (curves, steps); later: shape (later steps,).
    """
    means = [np.repeat(values[:, -n:].mean(axis=1)[:, None], len(later), axis=1) for n in (1, *RECENT)]
    lines = [_line(_recent(steps, factor), steps, values, later) for factor in LINES]
    return np.stack([*means, *lines, *(_law(law, steps, values, later) for law in SMOOTH)])


def _line(recent: NDArray[np.intp], steps: Values, values: Values, later: Values) -> Values:
    """Forecasts by a line in log steps through some steps, shape (curves, later steps)."""
    log_steps = np.log(scaled(steps, steps[-1]))[recent]
    inverse = np.linalg.pinv(np.stack([np.ones(len(recent)), log_steps], axis=-1))
    return values[:, recent] @ inverse.T @ np.stack([np.ones(len(later)), np.log(later / steps[-1])])


def _law(law: str, steps: Values, values: Values, later: Values) -> Values:
    """Forecasts by the best-fitting shape of a law over the last two decades, shape (curves, later steps)."""
    recent, at = _recent(steps, WINDOW), later / steps[-1]
    positions, known = scaled(steps, steps[-1])[recent], values[:, recent]
    fitted, shapes = fits_of((law,), tuple(positions)), LAWS[law](float(positions[0]))
    best = fitted.squares_of_many(known.T).argmin(axis=0)
    ahead = {one: shapes[one](at) - shapes[one](positions).mean() for one in set(best)}
    slopes = (fitted.own[best] * known).sum(axis=1) / fitted.lengths[best]
    return known.mean(axis=1)[:, None] + slopes[:, None] * np.stack([ahead[one] for one in best])


def _recent(steps: Values, factor: float) -> NDArray[np.intp]:
    """Indices of the steps within a factor of the last, at least the last four."""
    return np.flatnonzero(steps >= min(steps[-1] / factor, steps[-FEWEST]))


def scale(steps: Values, values: Values) -> Values:
    """Scatter of each curve's steps, shape (curves,): from the distance of recent steps to the line through their neighbours
    in log steps.

    Half of the variance is the curve's, half that of all curves.
    """
    recent = _recent(steps, WINDOW)
    log_steps, recent_values = np.log(scaled(steps, steps[-1]))[recent], values[:, recent]
    share = (log_steps[2:] - log_steps[1:-1]) / (log_steps[2:] - log_steps[:-2])
    off = recent_values[:, 1:-1] - share * recent_values[:, :-2] - (1 - share) * recent_values[:, 2:]
    squares = (off**2 / (1 + share**2 + (1 - share) ** 2)).mean(axis=1)
    return np.sqrt((squares + squares.mean()) / 2)


def stacked(errors: Values, count: int) -> Values:
    """Weights of the forecasters: not negative, with sum 1.

    errors: shape (rows, forecasters), or fewer rows with the same sums of products (`_condensed`); count: number of rows
    that they stand for.
    """
    size = count * max(float((errors**2).sum(axis=0).min()) / count, 1e-12)
    pull, whole = np.sqrt(TOWARDS_EQUAL * size), 1e3 * np.sqrt(size)
    forecasters = errors.shape[1]
    system = np.concatenate([errors, pull * np.eye(forecasters), np.full((1, forecasters), whole)])
    wanted = np.concatenate([np.zeros(len(errors)), np.full(forecasters, pull / forecasters), [whole]])
    weights = nnls(system, wanted)[0]
    return weights / weights.sum()


def _condensed(errors: Values) -> Values:
    """As few rows as forecasters with the same sums of squares and products. errors: shape (forecasters, …)."""
    return np.asarray(np.linalg.qr(errors.reshape(len(errors), -1).T, mode="r"))


def crossed_weights(errors: Values) -> Values:
    """Weights of each curve's combination, learned from the curves of other folds: shape (forecasters, curves).

    errors: shape (forecasters, curves, trials).
    """
    curves, trials = errors.shape[1:]
    fold = np.arange(curves) % FOLDS
    parts = [_condensed(errors[:, fold == number]) for number in range(min(FOLDS, curves))]
    weights = [
        stacked(np.concatenate(parts[:number] + parts[number + 1 :]), trials * int((fold != number).sum()))
        for number in range(len(parts))
    ]
    return np.stack(weights, axis=1)[:, fold]


def _gain(baseline: Values, combined: Values) -> tuple[float, float]:
    """The share by which squared errors are below a baseline's, and a one-sided p-value against no gain, by Student's t over
    curves.

    The p-value is 1 if all curves are identical, so that their variation is unknown. baseline, combined: shape (curves,
    trials).
    """
    less = (baseline**2 - combined**2).mean(axis=1)
    gain = float(less.mean() / max((baseline**2).mean(), 1e-12))
    error = less.std(ddof=1) / np.sqrt(len(less))
    if not error > ROUNDING:
        return gain, 1.0
    tail = student_tail(float(less.mean() / error), len(less) - 1) / 2
    return gain, tail if gain > 0 else 1 - tail


def _quantile(errors: Values, level: float) -> float:
    """The level's quantile of errors, shape (curves, trials), raised for the small number of units (split conformal, Vovk
    2005).

    Errors of one curve are similar, and so are those of one step: the number of units is that of the independent rows and
    columns.
    """
    units = sum(errors.shape) - 1
    return float(np.quantile(errors, min(1.0, level * (units + 1) / units)))
