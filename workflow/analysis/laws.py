"""Laws of learning: smooth curves along pre-training, beside the straight line and the line with one bend.

Each law is linear in two numbers, where it starts and how far it rises, and has a shape that is found by trying a grid of
them: a fit is a projection for each shape, of which the best counts (variable projection, Golub & Pereyra 1973). So all
curves over the same steps are fitted at once, and a fit cannot end in a local optimum. Steps stand for tokens, to which they
are proportional in a run of one batch size.
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
ONSET = 0.5  # of the steps so far, the latest onset of a rise: of a later one there is too little to see
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
    """score = a + b / (1 + exp(-c (log steps - d))): flat, a rise, flat again (arXiv 2403.15796 of abilities that emerge)."""
    places = np.linspace(np.log(first), 0, 2 + int(-np.log(first) / APART))

    def shape(c: float, d: float) -> Shape:
        return lambda steps: 1 / (1 + np.exp(-c * (np.log(steps) - d)))

    return [shape(c, d) for c in STEEPNESS for d in places]


def _logarithm(first: float) -> list[Shape]:
    """score = a + b log steps: as much for each doubling."""
    return [np.log]


def _onset(first: float) -> list[Shape]:
    """score = a + b max(0, log(steps / c)): flat up to a step, as much for each doubling from there on."""
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
    """Steps as shares of a step; step 0 stands at half the first step above it, so that it has a logarithm."""
    return np.maximum(steps, steps[steps > 0].min() / 2) / to


@lru_cache
def shapes(law: str, steps: tuple[float, ...], at: tuple[float, ...] = ()) -> Values:
    """Bases of a law over steps and, after them, over later ones, shape (shapes, steps + at, 2)."""
    there = scaled(np.array(steps), steps[-1])
    places = np.concatenate([there, np.array(at) / steps[-1]])
    columns = [shape(places) for shape in LAWS[law](float(there[0]))]
    return np.stack([np.stack([np.ones_like(places), column], axis=-1) for column in columns])


@lru_cache
def straight_and_bent(steps: tuple[float, ...]) -> dict[str, Values]:
    """Bases of the straight line over steps and of lines with a bend, shapes (1, steps, 2) and (knots, steps, 3)."""
    x, knots = np.array(steps), bends(steps).knots
    flat = np.stack([np.ones_like(x), x / x[-1]], axis=-1)
    beyond = np.maximum(x - knots[:, None], 0) / x[-1]
    both = np.broadcast_to(flat, (len(knots), *flat.shape))
    return {"straight_line": flat[None], BEND: np.concatenate([both, beyond[..., None]], axis=-1)}


def bases(steps: tuple[float, ...]) -> dict[str, Values]:
    """All that is compared by held-out steps: name -> bases, shape (shapes, steps, parameters)."""
    return {**straight_and_bent(steps), **{law: shapes(law, steps) for law in LAWS}}


@lru_cache
def _rests(steps: tuple[float, ...]) -> Values:
    """What the shapes of all laws leave of a curve, shape (shapes of all laws, steps, steps)."""
    whole = np.concatenate([shapes(law, steps) for law in LAWS])
    return np.eye(len(steps)) - whole @ np.linalg.pinv(whole)


@dataclass(frozen=True)
class Without:
    """Fits without one step. spaces: orthonormal bases, shape (shapes, steps - 1, parameters); weights of the other steps in
    the step that is left out, shape (shapes, steps - 1)."""

    spaces: Values
    weights: Values


@lru_cache(maxsize=512)
def _without(name: str, steps: tuple[float, ...], place: int) -> Without:
    basis = bases(steps)[name]
    kept = np.delete(basis, place, axis=1)
    return Without(np.linalg.qr(kept)[0], np.einsum("kp,kpn->kn", basis[:, place], np.linalg.pinv(kept)))


def held_out(curve: Curve) -> dict[str, float]:
    """Root mean square error of each law, the straight line and the bend on steps that they are not fitted to.

    Each step but the first and the last, which would be extrapolated, is left out by itself.
    """
    steps = tuple(curve.steps)
    inner = range(1, len(steps) - 1)
    return {
        name: float(np.sqrt(np.mean([_missed(name, steps, curve.values, place) ** 2 for place in inner])))
        for name in bases(steps)
    }


def _missed(name: str, steps: tuple[float, ...], values: Values, place: int) -> float:
    """How far a step is off the best fit to the others."""
    found, rest = _without(name, steps, place), np.delete(values, place)
    caught = (np.einsum("knp,n->kp", found.spaces, rest) ** 2).sum(axis=1)
    return float(values[place] - found.weights[caught.argmax()] @ rest)


def law_p_value(curve: Curve, how: Resampling) -> float:
    """P-value of the best smooth law against the line with a bend, which is not a case of it nor it of the line.

    By simulation (Cox 1961; Williams 1970): curves of that law with this curve's noise, and how often a bend fits them that much
    better than every law.
    """
    steps = tuple(curve.steps)
    smooth, bent = _rests(steps), bends(steps).rest
    left = _squares(smooth, curve.values[:, None])[:, 0]
    best = int(left.argmin())
    noise = noise_around(curve, smooth[best], len(steps) - 3, how)
    drawn = (curve.values - smooth[best] @ curve.values)[:, None] + noise.T
    seen = left[best] - _squares(bent, curve.values[:, None]).min()
    simulated_law, simulated_bend = _squares(smooth, drawn).min(axis=0), _squares(bent, drawn).min(axis=0)
    ratio = seen / max(float(left[best] - seen), 1e-20)
    ratios = (simulated_law - simulated_bend) / np.maximum(simulated_bend, 1e-20)
    return float((1 + (ratios >= ratio).sum()) / (1 + len(ratios)))


def _squares(rests: Values, curves: Values) -> Values:
    """Sums of squares that projections, shape (shapes, steps, steps), leave of curves, shape (steps, curves)."""
    return ((rests @ curves) ** 2).sum(axis=1)


def thinned(curve: Curve) -> Sequence[Curve]:
    """The curve without its first step, without its last, its steps by turns in two halves, and without its start.

    That is the steps below a hundredth of the last: an untrained model's level is part of no law of learning, and makes any curve
    bend behind it.
    """
    places = np.arange(len(curve.steps))
    kept = (places[1:], places[:-1], places[::2], places[1::2], np.flatnonzero(curve.steps >= curve.steps[-1] / START))
    return [Curve(curve.steps[own], curve.values[own], curve.draws[own]) for own in kept]
