"""What more pre-training would add: scores at a later step, forecast from the steps so far, with an interval.

Laws of learning and simple baselines forecast side by side. How far to trust each is learnt from the study itself: its curves are
cut off at earlier steps and forecast as far ahead as is asked for now (rolling origin, Tashman 2000). Their weights minimise the
squared error of the combination on all curves of a sort together (stacking, Breiman 1996), drawn towards equal ones, which are
hard to beat where little is known (Smith & Wallis 2009). The interval comes from the errors on those steps, not from a model.
Where the combination was not significantly better there than the last value, or no better than a line in log steps, nothing is
forecast; nor where the last steps fall short of what earlier ones forecast, since the run may have turned down (`shortfall`).
A decline that begins after the last step cannot be known: forecasts assume that there is none.

A forecast is of the score on the same test rows: their sampling is no part of its interval, the scatter between checkpoints is.
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

RECENT = (3, 5)  # steps whose mean is a forecast
LINES = (
    np.inf,
    100,
    10,
    5,
)  # lines in log steps are of all steps, of those from the last one's hundredth, tenth, fifth on
SMOOTH = ("power_law", "saturating_exponential", "log_sigmoid")
WINDOW = 100  # as are the laws: an untrained model's chance level says nothing of where a curve goes
FEWEST = 4  # steps that a forecast is made of, and curves that its error is judged by
REACH = 1.6  # held-out steps lie ahead by what is asked for, in log steps, within this factor
ORIGINS = 4  # curves are cut off at steps from the last one's fourth on, where they go about as they go now
CUTS = 2  # places to cut at, since all errors behind one share what its last step scatters
TOWARDS_EQUAL = 1.0  # weight of equal shares beside the errors of the best forecaster
FOLDS = 5
TURN = 2  # steps from the last one divided by this on are those that a run may have turned at
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

    values, low, high: shape (curves,); gain: by what share the squared error on held-out steps is below the last value's;
    p_value: one-sided, of no gain; 1 where a line in log steps does as well; held: held-out steps of each curve; fallen: p-value
    of no `shortfall`.
    """

    values: Values
    low: Values
    high: Values
    gain: float
    p_value: float
    held: int
    fallen: float


def forecast(steps: Values, values: Values, at: float, level: float, sign: int = 1) -> Forecast | None:
    """Scores at a later step; None where nothing tells how good that is: too few curves, or no held-out steps that far ahead.

    steps: shape (steps,), rising; values: shape (curves, steps), of one sort; level: of the interval; sign: -1 if less is
    better.
    """
    ahead = np.log(at / steps[-1])
    trials = list(_trials(steps, values, ahead))
    if len({cut for cut, _ in trials}) < CUTS or len(values) < FEWEST:
        return None
    errors = np.stack([own for _, own in trials], axis=-1)
    combined, weights = _crossed(errors), stacked(errors)
    gain, p_value = _gain(errors[0], combined)
    if _gain(errors[FORECASTERS.index(LINE)], combined)[0] <= 0:
        p_value = 1.0
    centre = weights @ forecasts(steps, values, at)
    half = _quantile(np.abs(combined), level) * scale(steps, values)
    fallen = shortfall(steps, sign * values, sign * errors)
    return Forecast(centre, centre - half, centre + half, gain, p_value, len(trials), fallen)


def shortfall(steps: Values, values: Values, errors: Values) -> float:
    """One-sided p-value of no decline in the last steps beyond what earlier ones forecast.

    The run is cut off at each of the steps from half the last one on. The errors behind each cut, averaged for each curve and
    tested by Student's t over curves, are below 0 where the run has turned down there. The smallest p-value counts, times their
    number (Bonferroni). Weights of each curve's combination are learnt of other curves. errors: as of `stacked`.
    """
    fold = np.arange(errors.shape[1]) % FOLDS
    weights = np.stack([stacked(errors[:, fold != number]) for number in range(min(FOLDS, errors.shape[1]))], axis=1)[
        :, fold
    ]
    cuts = [cut for cut in range(FEWEST, len(steps)) if steps[cut - 1] >= steps[-1] / TURN]
    p_values = [_below(_behind(steps, values, cut, weights)) for cut in cuts]
    return min(1.0, len(cuts) * min(p_values, default=1.0))


def _behind(steps: Values, values: Values, cut: int, weights: Values) -> Values:
    """Mean scaled error of each curve's combination on the steps from a cut on, shape (curves,)."""
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
    """A scatter to divide by; 1 where curves do not scatter."""
    return np.where(scatter > 0, scatter, 1.0)


def forecasts(steps: Values, values: Values, at: float) -> Values:
    """What each of FORECASTERS says of a later step, shape (forecasters, curves)."""
    key = tuple(steps)
    fixed = values @ _fixed(key, at).T
    smooth = [_smooth(name, key, at) for name in SMOOTH]
    return np.concatenate([fixed.T, [_best(rest, weights, values) for rest, weights in smooth]])


def _best(rests: Values, weights: Values, values: Values) -> Values:
    """Forecasts by the shape that fits each curve best, shape (curves,)."""
    left = (np.einsum("kij,cj->kci", rests, values) ** 2).sum(axis=-1)
    return (weights @ values.T)[left.argmin(axis=0), np.arange(len(values))]


def _recent(steps: Values, factor: float) -> NDArray[np.intp]:
    """Places of the steps within a factor of the last, of the last four at least."""
    return np.flatnonzero(steps >= min(steps[-1] / factor, steps[-FEWEST]))


@lru_cache
def _fixed(key: tuple[float, ...], at: float) -> Values:
    """What each step's value counts in the forecasts without a shape, shape (forecasters, steps)."""
    steps = np.array(key)
    rows = [np.where(np.arange(len(steps)) >= len(steps) - n, 1 / min(n, len(steps)), 0) for n in (1, *RECENT)]
    place = np.log(scaled(steps, steps[-1]))
    for factor in LINES:
        own = _recent(steps, factor)
        row = np.zeros(len(steps))
        row[own] = np.array([1, np.log(at / steps[-1])]) @ np.linalg.pinv(
            np.stack([np.ones(len(own)), place[own]], axis=-1)
        )
        rows.append(row)
    return np.array(rows)


@lru_cache
def _smooth(law: str, key: tuple[float, ...], at: float) -> tuple[Values, Values]:
    """A law over the last two decades: what its shapes leave, (shapes, steps, steps), and their forecasts, (shapes, steps)."""
    steps = np.array(key)
    own = _recent(steps, WINDOW)
    there = scaled(steps, steps[-1])[own]
    rests, weights = [], []
    for shape in LAWS[law](float(there[0])):
        basis = np.stack([np.ones(len(own)), shape(there)], axis=-1)
        inverse = np.linalg.pinv(basis)
        rest, row = np.zeros((len(own), len(steps))), np.zeros(len(steps))
        rest[:, own] = np.eye(len(own)) - basis @ inverse
        row[own] = np.array([1.0, float(shape(np.array([at / steps[-1]]))[0])]) @ inverse
        rests.append(rest)
        weights.append(row)
    return np.array(rests), np.array(weights)


def scale(steps: Values, values: Values) -> Values:
    """How much each curve's steps scatter, shape (curves,): by how far the recent ones are off the line through their neighbours
    in log steps, half the curve's own variance and half that of all curves."""
    own = _recent(steps, WINDOW)
    place, there = np.log(scaled(steps, steps[-1]))[own], values[:, own]
    share = (place[2:] - place[1:-1]) / (place[2:] - place[:-2])
    off = there[:, 1:-1] - share * there[:, :-2] - (1 - share) * there[:, 2:]
    squares = (off**2 / (1 + share**2 + (1 - share) ** 2)).mean(axis=1)
    return np.sqrt((squares + squares.mean()) / 2)


def _trials(steps: Values, values: Values, ahead: float) -> Iterator[tuple[int, Values]]:
    """Scaled errors of all forecasters on held-out steps as far ahead as is asked for: the number of steps before the cut, and
    errors of shape (forecasters, curves)."""
    for cut in range(FEWEST, len(steps)):
        if steps[cut - 1] < steps[-1] / ORIGINS:
            continue
        there, known = steps[:cut], values[:, :cut]
        scatter = _positive(scale(there, known))
        for later in range(cut, len(steps)):
            if ahead / REACH <= np.log(steps[later] / there[-1]) <= ahead * REACH:
                yield (
                    cut,
                    (values[:, later] - forecasts(there, known, float(steps[later]))) / scatter,
                )


def stacked(errors: Values) -> Values:
    """Weights of the forecasters, not negative, together 1. errors: shape (forecasters, …)."""
    flat = errors.reshape(len(errors), -1).T
    size = len(flat) * max(float((flat**2).mean(axis=0).min()), 1e-12)
    pull, whole = np.sqrt(TOWARDS_EQUAL * size), 1e3 * np.sqrt(size)
    count = len(errors)
    system = np.concatenate([flat, pull * np.eye(count), np.full((1, count), whole)])
    wanted = np.concatenate([np.zeros(len(flat)), np.full(count, pull / count), [whole]])
    weights = nnls(system, wanted)[0]
    return weights / weights.sum()


def _crossed(errors: Values) -> Values:
    """Errors of the combination on each curve, its weights learnt of other curves: shape (curves, trials)."""
    fold = np.arange(errors.shape[1]) % FOLDS
    combined = np.empty(errors.shape[1:])
    for number in np.unique(fold):
        weights = stacked(errors[:, fold != number])
        combined[fold == number] = np.tensordot(weights, errors[:, fold == number], axes=1)
    return combined


def _gain(baseline: Values, combined: Values) -> tuple[float, float]:
    """The share by which squared errors are below a baseline's, and a one-sided p-value of none by Student's t over curves.

    The p-value is 1 where all curves are alike, so that nothing says how they vary.

    baseline, combined: shape (curves, trials).
    """
    less = (baseline**2 - combined**2).mean(axis=1)
    gain = float(less.mean() / max((baseline**2).mean(), 1e-12))
    error = less.std(ddof=1) / np.sqrt(len(less))
    if not error > ROUNDING:
        return gain, 1.0
    tail = student_tail(float(less.mean() / error), len(less) - 1) / 2
    return gain, tail if gain > 0 else 1 - tail


def _quantile(errors: Values, level: float) -> float:
    """The level's quantile of errors, shape (curves, trials), raised for as few units as there are (split conformal, Vovk 2005).

    Errors of one curve are alike, and those of one step: so many units as rows and columns say independently.
    """
    units = sum(errors.shape) - 1
    return float(np.quantile(errors, min(1.0, level * (units + 1) / units)))
