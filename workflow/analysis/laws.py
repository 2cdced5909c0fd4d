"""Learning curves: smooth laws along pre-training, the straight line, and the line with one bend.

Each law is linear in two parameters, its start and its rise, and has a shape from a grid. A fit is a projection for each
shape, of which the best counts (variable projection, Golub & Pereyra 1973). All curves over the same steps are thus fitted
at once, and a fit cannot end in a local optimum. Steps stand for tokens, to which they are proportional in a run of constant
batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from workflow.analysis.curves import Curve, bends, noise_around
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


@lru_cache
def shapes(law: str, steps: tuple[float, ...], at: tuple[float, ...] = ()) -> Values:
    """Design matrices of a law over steps and, after them, over later ones, shape (shapes, steps + at, 2)."""
    positions = scaled(np.array(steps), steps[-1])
    places = np.concatenate([positions, np.array(at) / steps[-1]])
    columns = [shape(places) for shape in LAWS[law](float(positions[0]))]
    return np.stack([np.stack([np.ones_like(places), column], axis=-1) for column in columns])


@lru_cache
def straight_and_bent(steps: tuple[float, ...]) -> dict[str, Values]:
    """Design matrices of the straight line and of lines with a bend, shapes (1, steps, 2) and (knots, steps, 3)."""
    x, knots = np.array(steps), bends(steps).knots
    flat = np.stack([np.ones_like(x), x / x[-1]], axis=-1)
    beyond = np.maximum(x - knots[:, None], 0) / x[-1]
    both = np.broadcast_to(flat, (len(knots), *flat.shape))
    return {"straight_line": flat[None], BEND: np.concatenate([both, beyond[..., None]], axis=-1)}


def bases(steps: tuple[float, ...]) -> dict[str, Values]:
    """All models that held-out steps compare: name -> design matrices, shape (shapes, steps, parameters)."""
    return {**straight_and_bent(steps), **{law: shapes(law, steps) for law in LAWS}}


@lru_cache
def _rests(steps: tuple[float, ...]) -> Values:
    """Projections on the residuals of all shapes of all laws, shape (shapes of all laws, steps, steps)."""
    whole = np.concatenate([shapes(law, steps) for law in LAWS])
    return np.eye(len(steps)) - whole @ np.linalg.pinv(whole)


@dataclass(frozen=True)
class Without:
    """Fits without one step.

    spaces: orthonormal bases, shape (shapes, steps - 1, parameters); weights: of the other steps in the prediction of the
    left-out step, shape (shapes, steps - 1).
    """

    spaces: Values
    weights: Values


@lru_cache(maxsize=512)
def _without(name: str, steps: tuple[float, ...], index: int) -> Without:
    basis = bases(steps)[name]
    others = np.delete(basis, index, axis=1)
    return Without(np.linalg.qr(others)[0], np.einsum("kp,kpn->kn", basis[:, index], np.linalg.pinv(others)))


def held_out(curve: Curve) -> dict[str, float]:
    """Root mean square error of each law, the straight line and the bend on steps that they are not fitted to.

    Each step is left out in turn, except the first and the last, which would be extrapolated.
    """
    steps = tuple(curve.steps)
    inner = range(1, len(steps) - 1)
    return {
        name: float(np.sqrt(np.mean([_missed(name, steps, curve.values, index) ** 2 for index in inner])))
        for name in bases(steps)
    }


def _missed(name: str, steps: tuple[float, ...], values: Values, index: int) -> float:
    """Error of the best fit to the other steps at a step."""
    fitted, rest = _without(name, steps, index), np.delete(values, index)
    caught = (np.einsum("knp,n->kp", fitted.spaces, rest) ** 2).sum(axis=1)
    return float(values[index] - fitted.weights[caught.argmax()] @ rest)


def law_p_value(curve: Curve, resampling: Resampling) -> float:
    """P-value of the best smooth law against the line with a bend; neither contains the other.

    By simulation (Cox 1961; Williams 1970) of curves of that law with this curve's noise: how often a bend fits them better
    than every law by at least as much.
    """
    steps = tuple(curve.steps)
    smooth, bent = _rests(steps), bends(steps).rest
    left = _squares(smooth, curve.values[:, None])[:, 0]
    best = int(left.argmin())
    noise = noise_around(curve, smooth[best], len(steps) - 3, resampling)
    drawn = (curve.values - smooth[best] @ curve.values)[:, None] + noise.T
    seen = left[best] - _squares(bent, curve.values[:, None]).min()
    simulated_law, simulated_bend = _squares(smooth, drawn).min(axis=0), _squares(bent, drawn).min(axis=0)
    ratio = seen / max(float(left[best] - seen), 1e-20)
    ratios = (simulated_law - simulated_bend) / np.maximum(simulated_bend, 1e-20)
    return float((1 + (ratios >= ratio).sum()) / (1 + len(ratios)))


def _squares(rests: Values, curves: Values) -> Values:
    """Residual sums of squares of curves, shape (steps, curves), for projections of shape (shapes, steps, steps)."""
    return ((rests @ curves) ** 2).sum(axis=1)


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
