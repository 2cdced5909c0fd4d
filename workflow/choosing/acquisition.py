"""Which candidate to fine-tune next: rules that give each candidate a value, the highest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from workflow.choosing.surrogate import Posterior, Prior

Values = NDArray[np.float64]

STARTING = 4000  # draws from the prior


def expected_improvement(posterior: Posterior, margin: float = 0.0) -> Values:
    """Expected gain of each candidate over the best one that is tuned, shape (n,) (Jones et al. 1998, equation 15).

    The best is the one with the highest posterior mean, so that a lucky score is not taken at its word.
    """
    best = posterior.means[:, posterior.tried].max(axis=1, keepdims=True) + margin
    deviations = np.sqrt(posterior.variances)
    standard = (posterior.means - best) / deviations
    return posterior.weights @ (deviations * (standard * norm.cdf(standard) + norm.pdf(standard)))


def probability_of_improvement(posterior: Posterior, margin: float = 0.0) -> Values:
    """Probability of each candidate to be better than the best one that is tuned by a margin, shape (n,)."""
    best = posterior.means[:, posterior.tried].max(axis=1, keepdims=True) + margin
    return posterior.weights @ norm.cdf((posterior.means - best) / np.sqrt(posterior.variances))


def upper_bound(posterior: Posterior) -> Values:
    """Posterior mean of each candidate plus two standard deviations, shape (n,)."""
    return posterior.mean + 2 * posterior.deviation


RULES: dict[str, Callable[[Posterior], Values]] = {
    "expected_improvement": expected_improvement,
    "probability_of_improvement": probability_of_improvement,
    "upper_bound": upper_bound,
}


def first(prior: Prior, prices: Values, count: int, seed: int) -> list[int]:
    """Return the candidates to begin with, before any score is known.

    Each is expected to add most per GPU-hour to the best score of those chosen, in joint draws from the prior; the first to the
    worst of all. So what is good by indicators and late in its run comes first, then what is good and unlike those chosen.
    """
    draws = prior.draws(STARTING, seed)
    best, chosen = draws.min(axis=1), list[int]()
    while len(chosen) < min(count, len(prior)):
        gain = np.maximum(draws - best[:, None], 0).mean(axis=0) / prices
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        best = np.maximum(best, draws[:, chosen[-1]])
    return chosen


def order(values: Values, left: Sequence[int]) -> list[int]:
    """Return the candidates that are left by value, the highest first."""
    return sorted(left, key=lambda index: -values[index])
