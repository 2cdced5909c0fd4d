"""Which candidate to fine-tune next: rules that give each candidate a value, the highest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from workflow.choosing.candidates import Candidates
from workflow.choosing.surrogate import Posterior

Values = NDArray[np.float64]


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


def first(candidates: Candidates, count: int, generator: np.random.Generator) -> list[int]:
    """Return the candidates to begin with, before any score is known: good by the mean of their indicators, late, and unlike.

    The first has the highest mean; the second is the last step of its run; each further one maximises its rank by the mean, as
    a share, times its squared distance from those chosen, per GPU-hour relative to the mean. Of equals a random one.
    """
    indicators, prices = candidates.indicators, candidates.prices
    mean = indicators.mean(axis=1) if indicators.shape[1] else np.zeros(len(indicators))
    mean = mean + generator.normal(0, 1e-3, len(mean))
    chosen = [int(mean.argmax())]
    run = candidates.runs == candidates.runs[chosen[0]]
    last = (
        int(np.where(run, candidates.steps, -np.inf).argmax())
        if np.isfinite(candidates.steps[run]).all()
        else chosen[0]
    )
    chosen = list(dict.fromkeys([*chosen, last]))[:count]
    while len(chosen) < min(count, len(mean)):
        distance = np.min([((indicators - indicators[index]) ** 2).sum(axis=1) for index in chosen], axis=0)
        worth = norm.cdf(mean) * (distance + 1e-9) * (prices.mean() / prices)
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
    return chosen


def order(values: Values, left: Sequence[int]) -> list[int]:
    """Return the candidates that are left by value, the highest first."""
    return sorted(left, key=lambda index: -values[index])
