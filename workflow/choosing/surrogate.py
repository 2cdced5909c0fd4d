"""The posterior of every candidate's score after fine-tuning, given the scores of those that are fine-tuned.

The scores are a Gaussian process over candidates (Rasmussen & Williams 2006, chapter 2). With ten scores, no point estimate of
its hyperparameters can be trusted. They are therefore drawn from a prior, and each draw is weighted by its marginal
likelihood (importance sampling; for the principle: Snoek et al. 2012, section 3.2). The posterior is the weighted mixture.

The covariance of two candidates is a sum of six parts whose shares of the variance are drawn (Duvenaud et al. 2011): a linear one
in all indicators and numeric fields; a linear one in progress, the step as a share of its run; a smooth one in all features
together; one for each field by itself; one for steps of the same run that lie close to each other; and one that each candidate
has alone. The mean rises with indicators and progress: slopes are expected to be positive, though none is certain to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from workflow.choosing.candidates import Candidates

Values = NDArray[np.float64]

DRAWS = 256  # of hyperparameters
ENTRIES = 2**25  # of all covariances together: 256 MB; for many candidates there are fewer draws
FEWEST_DRAWS = 32
SHARES = (1.0, 0.5, 1.0, 0.5, 0.5, 1.0)  # Dirichlet prior of the parts' shares, in the order above
SPARSITY = 0.5  # Dirichlet prior of the weights of features: few of them matter
SCALE = 0.6  # standard deviation of the logarithm of the variance, in units of the measured scores' variance
LENGTHS = (-1.0, 1.0)  # mean and standard deviation of the logarithm of the squared inverse length scale
TREND = (1.0, 3.0)  # mean of the slopes of indicators and progress, in units of their deviation: lowest and highest
LEVEL = 1.0  # variance of the mean of all scores, in the same unit
JITTER = 1e-6  # added to the diagonal of what is inverted
OUTLYING = 4.0  # scores further below the median than this many median absolute deviations count as that far below


@dataclass(frozen=True)
class Prior:
    """Means and covariances of all candidates' scores in units of the deviation of the measured ones, for each draw.

    covariances: shape (draws, n, n); means: up to a constant, shape (draws, n).
    """

    covariances: Values
    means: Values

    def __len__(self) -> int:
        """Return the number of candidates."""
        return self.covariances.shape[1]

    @cached_property
    def roots(self) -> Values:
        """Cholesky factors of the covariances, shape (draws, n, n)."""
        return _root(self.covariances + JITTER * np.eye(len(self)))

    @cached_property
    def flat(self) -> Prior:
        """The same prior without its expectation that indicators and progress are good: slopes of both signs are alike."""
        return Prior(self.covariances, np.zeros_like(self.means))

    def draws(self, count: int, seed: int) -> Values:
        """Return scores of all candidates drawn jointly, in the prior's unit and up to a constant, shape (count, n)."""
        generator = np.random.default_rng([seed, len(self)])
        normal = generator.standard_normal((len(self.means), len(self), -(-count // len(self.means))))
        return np.asarray((self.means[..., None] + self.roots @ normal).swapaxes(1, 2).reshape(-1, len(self))[:count])


def prior(candidates: Candidates, seed: int, draws: int = DRAWS) -> Prior:
    """Return the prior of the candidates' scores; the same for the same candidates and seed."""
    count = len(candidates)
    draws = max(min(draws, ENTRIES // count**2), FEWEST_DRAWS)
    generator = np.random.default_rng([seed, count])
    progress = candidates.progress
    features = np.column_stack([candidates.indicators, progress, candidates.numbers])
    squares = (features[:, None] - features) ** 2
    differ = (candidates.labels[:, None] != candidates.labels).astype(float)
    first = candidates.indicators.shape[1]
    parts = _Parts(
        features,
        first,
        np.concatenate([squares, 2 * differ], axis=2),
        squares[..., first + 1 :],
        differ,
        np.where(candidates.runs[:, None] == candidates.runs, np.exp(-2 * squares[..., first]), 0.0),
    )
    drawn = [parts.drawn(generator) for _ in range(draws)]
    return Prior(np.stack([covariance for _, covariance in drawn]), np.stack([mean for mean, _ in drawn]))


@dataclass(frozen=True)
class _Parts:
    """What means and covariances are made of; n candidates.

    features: indicators, progress, numeric fields, shape (n, features); indicators: number of these; apart: squared distances in
    each feature, shape (n, n, features); near: those in numeric fields; differ: whether labels differ, shape (n, n, labels);
    along: nearness of steps of the same run, 0 to 1, shape (n, n).
    """

    features: Values
    indicators: int
    apart: Values
    near: Values
    differ: Values
    along: Values

    def drawn(self, generator: np.random.Generator) -> tuple[Values, Values]:
        """Return a mean and a covariance with hyperparameters drawn from their prior."""
        scale = np.exp(generator.normal(0.0, SCALE))
        linear, late, smooth, fields, run, alone = generator.dirichlet(SHARES)
        slopes = linear * _sparse(generator, self.features.shape[1])
        slopes[self.indicators] = late
        good = slice(self.indicators + 1)
        trend = generator.uniform(*TREND) * self.features[:, good] @ np.sqrt(slopes[good])
        covariance = (self.features * slopes) @ self.features.T
        lengths = np.exp(generator.normal(*LENGTHS)) * self.apart.shape[2]
        together = np.exp(-self.apart @ (lengths * _sparse(generator, self.apart.shape[2])) / 2)
        covariance += smooth * together + fields * self._by_field(generator) + run * self.along
        return scale**0.5 * trend, scale * (covariance + alone * np.eye(len(covariance))) + LEVEL

    def _by_field(self, generator: np.random.Generator) -> Values:
        """Return the sum of a covariance for each field: equal labels, near numbers."""
        alike = np.concatenate([1 - self.differ, np.exp(-2 * self.near)], axis=2)
        return alike @ _sparse(generator, alike.shape[2])


def _sparse(generator: np.random.Generator, count: int) -> Values:
    """Return weights of features with the sum 1, most of them small, shape (count,)."""
    return generator.dirichlet(np.full(count, SPARSITY)) if count else np.zeros(0)


@dataclass(frozen=True)
class Posterior:
    """Scores of all candidates given the measured ones, as a mixture over hyperparameters.

    weights: of the draws, shape (draws,); means: shape (draws, n); variances: shape (draws, n); tried: numbers of the measured
    candidates; roots: Cholesky factors of the covariances of their scores and noise, shape (draws, tried, tried); noise: that
    of the noise alone, in units of the prior, shape (tried, tried); unit: scores per unit of the prior.
    """

    prior: Prior
    weights: Values
    means: Values
    variances: Values
    tried: Sequence[int]
    roots: Values
    noise: Values
    unit: float

    @cached_property
    def mean(self) -> Values:
        """Posterior mean of each candidate's score, shape (n,)."""
        return self.weights @ self.means

    @cached_property
    def deviation(self) -> Values:
        """Posterior standard deviation of each candidate's score, shape (n,)."""
        return np.sqrt(np.maximum(self.weights @ (self.variances + self.means**2) - self.mean**2, 0.0))

    def draws(self, count: int, seed: int) -> Values:
        """Return scores of all candidates drawn jointly, shape (count, n).

        Draws from the prior are corrected by the measured scores (Matheron's rule: Wilson et al. 2020, equation 8).
        """
        generator = np.random.default_rng([seed, len(self.tried)])
        numbers = generator.multinomial(count, self.weights)
        return np.concatenate(
            [self._drawn(int(index), int(numbers[index]), generator) for index in np.flatnonzero(numbers)]
        )

    def _drawn(self, index: int, count: int, generator: np.random.Generator) -> Values:
        """Return scores drawn with one draw of hyperparameters, shape (count, n)."""
        free = self.prior.roots[index] @ generator.standard_normal((len(self.prior), count))
        measured = free[self.tried] + self.noise @ generator.standard_normal((len(self.tried), count))
        known = self.prior.covariances[index][self.tried]
        correction = known.T @ cho_solve((self.roots[index], True), measured)
        return (self.means[index][:, None] + self.unit * (free - correction)).T


def posterior(prior: Prior, tried: Sequence[int], values: Values, noise: Values) -> Posterior:
    """Return the posterior of all scores, higher is better.

    tried: numbers of measured candidates, at least one; values: their scores; noise: covariance of the noise in these, shape
    (tried, tried). Candidates are tested on the same rows, so their noise is correlated: what raises all alike decides nothing.
    """
    places = list(tried)
    scores = clipped(values)
    centre, unit = scores.mean(), _unit(scores, noise)
    covariances = prior.covariances[:, places]
    relative = noise / unit**2 + JITTER * np.eye(len(places))
    root = _root(covariances[:, :, places] + relative)
    targets = ((scores - centre) / unit - prior.means[:, places])[..., None]
    solved = np.linalg.solve(root, np.concatenate([covariances, targets], axis=2))
    factors, whitened = solved[..., :-1], solved[..., -1]
    likelihoods = -(whitened**2).sum(1) / 2 - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
    weights = np.exp(likelihoods - likelihoods.max())
    spread = np.diagonal(prior.covariances, axis1=1, axis2=2) - (factors**2).sum(1)
    means = prior.means + np.einsum("hnm,hn->hm", factors, whitened)
    return Posterior(
        prior,
        weights / weights.sum(),
        centre + unit * means,
        unit**2 * np.maximum(spread, JITTER),
        places,
        root,
        _root(relative),
        unit,
    )


def clipped(values: Values) -> Values:
    """Return scores with those far below the others raised: a run that failed says that it failed, not how the others vary."""
    centre = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - centre))
    return np.maximum(values, centre - OUTLYING * spread) if spread > 0 else values


def _unit(scores: Values, noise: Values) -> float:
    """Return the standard deviation that the prior is relative to: of the scores, at least their noise."""
    return max(float(scores.std()), float(np.diag(noise).mean()) ** 0.5, 1e-9)


def _root(matrices: Values) -> Values:
    """Return Cholesky factors."""
    return np.asarray(np.linalg.cholesky(matrices), dtype=np.float64)
