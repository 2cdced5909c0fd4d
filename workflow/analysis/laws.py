"""Learning curves: smooth laws along pre-training, the straight line, and the line with one bend.

Each law is linear in two parameters, its start and its rise, and has a shape from a grid. A fit is a projection for each
shape, of which the best counts (variable projection, Golub & Pereyra 1973). All curves over the same steps are thus fitted
at once, and a fit cannot end in a local optimum. Steps stand for tokens, to which they are proportional in a run of constant
batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workflow.analysis.curves import ROUNDING, Curve, bends, drawn_noise, scatter_between
from workflow.analysis.fits import NOTHING, Fits, fits
from workflow.statistics import Resampling

Values = NDArray[np.float64]
Shape = Callable[[Values], Values]

SHAPES = 20  # of laws with one free shape
EXPONENTS = (
    0.05,
    1.5,
)  # of the power law; fitted exponents of losses and errors lie between .05 and 1 (arXiv 2001.08361)
STEEPNESS = (0.7, 1.0, 1.5, 2.5, 4.0)  # of the sigmoid, per e-fold of steps
APART = 0.4  # e-folds of steps between its midpoints
ONSET = 0.5  # the latest onset of a rise, as a share of the steps so far; a later one shows too little of it
LONGEST = 1.5  # the slowest exponential's time constant, in training lengths so far
BEND = "bend"
START = 100
ALIKE = 1e-12  # residual sums of squares that differ by less than this share of a curve's are equal except for rounding


def _power(first: float) -> list[Shape]:
    """score = a - b steps^-c (arXiv 2001.08361, section 4)."""

    def shape(c: float) -> Shape:
        return lambda steps: -(steps**-c)

    return [shape(c) for c in np.linspace(*EXPONENTS, SHAPES)]


def _exponential(first: float) -> list[Shape]:
    """score = a - b exp(-steps / c)."""

    def shape(c: float) -> Shape:
        return lambda steps: -np.exp(-steps / c)

    return [shape(c) for c in np.geomspace(max(first, 0.02), LONGEST, SHAPES)]


def _sigmoid(first: float) -> list[Shape]:
    """score = a + b / (1 + exp(-c (log steps - d))): flat, a rise, flat again (arXiv 2403.15796 on emergent abilities)."""
    places = np.linspace(np.log(first), 0, 2 + int(-np.log(first) / APART))

    def shape(c: float, d: float) -> Shape:
        return lambda steps: 1 / (1 + np.exp(-c * (np.log(steps) - d)))

    return [shape(c, d) for c in STEEPNESS for d in places]


def _logarithm(first: float) -> list[Shape]:
    """score = a + b log steps: a constant gain for each doubling."""
    return [np.log]


def _onset(first: float) -> list[Shape]:
    """score = a + b max(0, log(steps / c)): flat up to a step, then a constant gain for each doubling."""
    places = (
        np.linspace(np.log(first), np.log(ONSET), 2 + int(np.log(ONSET / first) / APART)) if first < ONSET else [0.0]
    )

    def shape(c: float) -> Shape:
        return lambda steps: np.maximum(np.log(steps) - c, 0)

    return [shape(c) for c in places]


LAWS: Mapping[str, Callable[[float], list[Shape]]] = {
    "power_law": _power,
    "saturating_exponential": _exponential,
    "log_sigmoid": _sigmoid,
    "logarithm": _logarithm,
    "logarithm_from_onset": _onset,
}


def scaled(steps: Values, to: float) -> Values:
    """Steps relative to a step. Step 0 counts as half the first positive step, so that it has a logarithm."""
    return np.maximum(steps, steps[steps > 0].min() / 2) / to


@lru_cache(maxsize=1024)  # forecasts fit three laws to the steps before each of hundreds of cuts
def fits_of(laws: tuple[str, ...], positions: tuple[float, ...]) -> Fits:
    """Fits of all shapes of some laws. positions: `scaled` steps, ascending."""
    columns = [shape(np.array(positions)) for law in laws for shape in LAWS[law](positions[0])]
    return fits(np.ones((len(positions), 1)), np.stack(columns))


def all_fits(steps: Values) -> dict[str, Fits]:
    """All models that held-out steps compare."""
    positions, bent = tuple(scaled(steps, steps[-1])), bends(tuple(steps)).fits
    return {"straight_line": bent.without_own(), BEND: bent, **{law: fits_of((law,), positions) for law in LAWS}}


def held_out(curve: Curve) -> dict[str, float]:
    """Root mean square error of each law, the straight line and the bend on steps that they are not fitted to.

    Each step is left out in turn, except the first and the last, which would be extrapolated.
    """
    return {
        name: float(np.sqrt(np.mean(_missed(model, curve.values)[1:-1] ** 2)))
        for name, model in all_fits(curve.steps).items()
    }


def _missed(model: Fits, values: Values) -> Values:
    """Error of the best fit to the other steps at each step, shape (steps,).

    A residual divided by one minus the leverage of its step is the error of the fit without that step, which lowers the
    residual sum of squares by the product of both (Cook & Weisberg 1982, section 2.2). A fit that the other steps do not
    determine is not the best. Of equally good ones, such as knots before the second of the other steps, the first counts.
    """
    residuals, free = model.residuals(values), 1 - model.leverages()
    known = free > NOTHING
    errors = np.divide(residuals, free, out=np.zeros_like(residuals), where=known)
    left = np.where(known, (residuals**2).sum(axis=1)[:, None] - residuals * errors, np.inf)
    best = left.min(axis=0) + ALIKE * (model.beyond(values) ** 2).sum()
    return errors[(left <= best).argmax(axis=0), np.arange(len(values))]


def law_p_value(curve: Curve, resampling: Resampling) -> float:
    """P-value of the best smooth law against the line with a bend; neither contains the other.

    By simulation (Cox 1961; Williams 1970) of curves of that law with this curve's noise: how often a bend fits them better
    than every law by at least as much.
    """
    positions = tuple(scaled(curve.steps, curve.steps[-1]))
    smooth, bent = fits_of(tuple(LAWS), positions), bends(tuple(curve.steps)).fits
    left = smooth.squares(curve.values)
    best = int(left.argmin())
    scatter = scatter_between(left, smooth.expected(curve.noise), len(positions) - 3)[best]
    fitted = curve.values - smooth.residuals(curve.values)[best]
    drawn = fitted[:, None] + drawn_noise(curve, scatter, resampling).T
    seen = left[best] - bent.squares(curve.values).min()
    simulated_law, simulated_bend = (model.squares_of_many(drawn).min(axis=0) for model in (smooth, bent))
    ratio = seen / max(float(left[best] - seen), ROUNDING)
    ratios = (simulated_law - simulated_bend) / np.maximum(simulated_bend, ROUNDING)
    return float((1 + (ratios >= ratio).sum()) / (1 + len(ratios)))


def thinned(curve: Curve) -> Sequence[Curve]:
    """The curve without its first step, without its last, with every second step (twice), and without its start.

    The start are the steps below a hundredth of the last: the level of an untrained model is not part of a learning curve,
    and makes any curve bend after it.
    """
    places = np.arange(len(curve.steps))
    thinnings = (
        places[1:],
        places[:-1],
        places[::2],
        places[1::2],
        np.flatnonzero(curve.steps >= curve.steps[-1] / START),
    )
    return [
        Curve(curve.steps[steps_kept], curve.values[steps_kept], curve.draws[steps_kept]) for steps_kept in thinnings
    ]
