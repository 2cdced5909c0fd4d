"""Forecasts of scores at a later step of pre-training, from the steps so far, with an interval.

Learning curves and simple baselines forecast side by side. Their weights are learned from the study: its curves are cut off
at earlier steps and forecast as far ahead as requested (rolling origin, Tashman 2000). The weights minimise the squared
error of the combination on all curves of a sort (stacking, Breiman 1996), shrunk towards equal weights, which are hard to
beat with little data (Smith & Wallis 2009). The interval comes from the errors on those steps, not from a model. There is no
forecast if the combination is not significantly better on held-out steps than the last value, or not better than a line in
log steps. There is none either if the last steps are below the forecast from earlier ones, because the run may have turned
down (`shortfall`). A decline that begins after the last step cannot be foreseen: forecasts assume that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from workflow.analysis.laws import LAWS, scaled
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

    values, low, high: shape (curves,); gain: share by which the squared error on held-out steps is below that of the last
    value; p_value: one-sided, of no gain, 1 if a line in log steps does as well; held: number of held-out steps of each
    curve; fallen: p-value of no `shortfall`.
    """

    values: Values
    low: Values
    high: Values
    gain: float
    p_value: float
    held: int
    fallen: float


def forecast(steps: Values, values: Values, at: float, level: float, sign: int = 1) -> Forecast | None:
    """Scores at a later step; None if the error is unknown: too few curves, or no held-out steps that far ahead.

    steps: shape (steps,), ascending; values: shape (curves, steps), of one sort; level: of the interval; sign: -1 if less is
    better.
    """
    ahead = np.log(at / steps[-1])
    trials = list(_trials(steps, values, ahead))
    if len({cut for cut, _ in trials}) < CUTS or len(values) < FEWEST:
        return None
    errors = np.stack([missed for _, missed in trials], axis=-1)
    combined, weights = _crossed(errors), stacked(errors)
    gain, p_value = _gain(errors[0], combined)
    if _gain(errors[FORECASTERS.index(LINE)], combined)[0] <= 0:
        p_value = 1.0
    centre = weights @ forecasts(steps, values, at)
    half = _quantile(np.abs(combined), level) * scale(steps, values)
    fallen = shortfall(steps, sign * values, sign * errors)
    return Forecast(centre, centre - half, centre + half, gain, p_value, len(trials), fallen)


def shortfall(steps: Values, values: Values, errors: Values) -> float:
    """One-sided p-value of no decline in the last steps beyond the forecast from earlier ones.

    The run is cut off at each step in its second half. The errors after each cut, averaged for each curve and tested by
    Student's t over curves, are below 0 if the run has turned down. The result is the smallest p-value, multiplied by the
    number of cuts (Bonferroni). The weights of each curve's combination are learned from the other curves. errors: as in
    `stacked`.
    """
    fold = np.arange(errors.shape[1]) % FOLDS
    weights = np.stack([stacked(errors[:, fold != number]) for number in range(min(FOLDS, errors.shape[1]))], axis=1)[
        :, fold
    ]
    cuts = [cut for cut in range(FEWEST, len(steps)) if steps[cut - 1] >= steps[-1] / TURN]
    p_values = [_below(_behind(steps, values, cut, weights)) for cut in cuts]
    return min(1.0, len(cuts) * min(p_values, default=1.0))


def _behind(steps: Values, values: Values, cut: int, weights: Values) -> Values:
    """Mean scaled error of each curve's combination on the steps after a cut, shape (curves,)."""
    known = steps[:cut], values[:, :cut]
    off = [
        (weights * (values[:, later] - forecasts(*known, float(steps[later])))).sum(axis=0)
        for later in range(cut, len(steps))
    ]
    return np.mean(off, axis=0) / _positive(scale(*known))


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


def forecasts(steps: Values, values: Values, at: float) -> Values:
    """Forecast of each of FORECASTERS for a later step, shape (forecasters, curves)."""
    key = tuple(steps)
    fixed = values @ _fixed(key, at).T
    smooth = [_smooth(name, key, at) for name in SMOOTH]
    return np.concatenate([fixed.T, [_best(rest, weights, values) for rest, weights in smooth]])


def _best(rests: Values, weights: Values, values: Values) -> Values:
    """Forecasts by the best-fitting shape of each curve, shape (curves,)."""
    left = (np.einsum("kij,cj->kci", rests, values) ** 2).sum(axis=-1)
    return (weights @ values.T)[left.argmin(axis=0), np.arange(len(values))]


def _recent(steps: Values, factor: float) -> NDArray[np.intp]:
    """Indices of the steps within a factor of the last, at least the last four."""
    return np.flatnonzero(steps >= min(steps[-1] / factor, steps[-FEWEST]))


@lru_cache
def _fixed(key: tuple[float, ...], at: float) -> Values:
    """Weights of each step's value in the forecasts without a shape, shape (forecasters, steps)."""
    steps = np.array(key)
    rows = [np.where(np.arange(len(steps)) >= len(steps) - n, 1 / min(n, len(steps)), 0) for n in (1, *RECENT)]
    log_steps = np.log(scaled(steps, steps[-1]))
    for factor in LINES:
        recent = _recent(steps, factor)
        row = np.zeros(len(steps))
        row[recent] = np.array([1, np.log(at / steps[-1])]) @ np.linalg.pinv(
            np.stack([np.ones(len(recent)), log_steps[recent]], axis=-1)
        )
        rows.append(row)
    return np.array(rows)


@lru_cache
def _smooth(law: str, key: tuple[float, ...], at: float) -> tuple[Values, Values]:
    """A law over the last two decades: projections on its residuals, (shapes, steps, steps), and its forecasts, (shapes,
    steps).
    """
    steps = np.array(key)
    recent = _recent(steps, WINDOW)
    positions = scaled(steps, steps[-1])[recent]
    rests, weights = [], []
    for shape in LAWS[law](float(positions[0])):
        basis = np.stack([np.ones(len(recent)), shape(positions)], axis=-1)
        inverse = np.linalg.pinv(basis)
        rest, row = np.zeros((len(recent), len(steps))), np.zeros(len(steps))
        rest[:, recent] = np.eye(len(recent)) - basis @ inverse
        row[recent] = np.array([1.0, float(shape(np.array([at / steps[-1]]))[0])]) @ inverse
        rests.append(rest)
        weights.append(row)
    return np.array(rests), np.array(weights)


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


def _trials(steps: Values, values: Values, ahead: float) -> Iterator[tuple[int, Values]]:
    """Scaled errors of all forecasters on held-out steps at the requested distance: number of steps before the cut, and
    errors of shape (forecasters, curves).
    """
    for cut in range(FEWEST, len(steps)):
        if steps[cut - 1] < steps[-1] / ORIGINS:
            continue
        steps_before, known = steps[:cut], values[:, :cut]
        scatter = _positive(scale(steps_before, known))
        for later in range(cut, len(steps)):
            if ahead / REACH <= np.log(steps[later] / steps_before[-1]) <= ahead * REACH:
                yield (
                    cut,
                    (values[:, later] - forecasts(steps_before, known, float(steps[later]))) / scatter,
                )


def stacked(errors: Values) -> Values:
    """Weights of the forecasters: not negative, with sum 1. errors: shape (forecasters, …)."""
    flat = errors.reshape(len(errors), -1).T
    size = len(flat) * max(float((flat**2).mean(axis=0).min()), 1e-12)
    pull, whole = np.sqrt(TOWARDS_EQUAL * size), 1e3 * np.sqrt(size)
    count = len(errors)
    system = np.concatenate([flat, pull * np.eye(count), np.full((1, count), whole)])
    wanted = np.concatenate([np.zeros(len(flat)), np.full(count, pull / count), [whole]])
    weights = nnls(system, wanted)[0]
    return weights / weights.sum()


def _crossed(errors: Values) -> Values:
    """Errors of the combination on each curve, with weights from the other curves: shape (curves, trials)."""
    fold = np.arange(errors.shape[1]) % FOLDS
    combined = np.empty(errors.shape[1:])
    for number in np.unique(fold):
        weights = stacked(errors[:, fold != number])
        combined[fold == number] = np.tensordot(weights, errors[:, fold == number], axes=1)
    return combined


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
