"""One step of a race between candidates: the pick so far, what it may lose, whether to stop, and what to fine-tune next.

The rule of stopping: the probability that some candidate's score is higher than that of the pick by more than `epsilon` is at
most `delta`, in joint draws from the posterior, and at least `FEWEST` candidates are fine-tuned. The draws have the tails of
Student's t, since the scale of all scores is estimated from the few that are known. The next candidate is chosen in the
expectation that high indicators and late steps are good; the rule of stopping does not expect it, since it was not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.choosing import acquisition, surrogate
from workflow.choosing.candidates import Candidates
from workflow.choosing.surrogate import Posterior, Prior

Values = NDArray[np.float64]

START = 2  # candidates tuned before the posterior chooses
FEWEST = 5  # candidates tuned before a race can be settled: fewer say nothing of their spread
DRAWS = 2000  # joint draws of all scores
RULE = "expected_improvement"


@dataclass(frozen=True)
class Goal:
    """When a race is settled, and its seed.

    epsilon: a loss that does not matter, in units of the score; delta: the accepted probability of a larger one.
    """

    epsilon: float
    delta: float
    seed: int


@dataclass(frozen=True)
class Proposal:
    """A candidate to fine-tune next. value: expected improvement over the pick, NaN before any score is known."""

    candidate: int
    value: float
    price: float


@dataclass(frozen=True)
class Decision:
    """The state of a race.

    pick: the candidate with the highest posterior mean of those tuned, None before any is; mean and deviation: of all candidates'
    scores, shape (n,); losing: probability that the pick loses more than epsilon; changing: probability that the pick would be
    another one if all were tuned; out: candidates that are better than the pick by more than epsilon with probability at most
    delta / n each; settled: whether the race may stop; batch: what to tune next.
    """

    pick: int | None
    mean: Values
    deviation: Values
    losing: float
    changing: float
    out: list[int]
    settled: bool
    batch: list[Proposal]


def decide(
    candidates: Candidates,
    tried: Sequence[int],
    values: Values,
    noise: Values,
    goal: Goal,
    batch: int = 1,
    prior: Prior | None = None,
    rule: str = RULE,
    eligible: Sequence[int] | None = None,
) -> Decision:
    """Return the state of a race and its next batch.

    tried: numbers of the candidates that are tuned; values: their scores, higher is better; noise: its covariance, shape (tried,
    tried); batch: how many to propose; prior: `surrogate.prior` of the candidates, computed if None;
    eligible: those of the tuned that may be picked, all if None or empty. The same arguments give the same decision.
    """
    prior = prior or surrogate.prior(candidates, goal.seed)
    if len(tried) < min(START, len(candidates)):
        return _beginning(prior, candidates, tried, values, goal, batch, eligible or tried)
    known = surrogate.posterior(prior, tried, values, noise)
    pick = picked(known, eligible or tried)
    doubting = surrogate.posterior(prior.flat, tried, values, noise)
    losing, changing, beaten = _chances(doubting, pick, noise, goal)
    left = [index for index in range(len(candidates)) if index not in set(tried)]
    settled = not left or (losing <= goal.delta and len(tried) >= FEWEST)
    out = [index for index in range(len(candidates)) if index != pick and beaten[index] <= goal.delta / len(candidates)]
    proposals = _batch(known, candidates, values, noise, batch, rule) if left else []
    return Decision(pick, known.mean, known.deviation, losing, changing, out, settled, proposals)


def picked(known: Posterior, eligible: Sequence[int]) -> int:
    """Return the candidate with the highest posterior mean of some that are tuned, the first of equals."""
    return int(max(eligible, key=lambda index: known.mean[index]))


def _beginning(
    prior: Prior,
    candidates: Candidates,
    tried: Sequence[int],
    values: Values,
    goal: Goal,
    batch: int,
    eligible: Sequence[int],
) -> Decision:
    """Return the state of a race with too few scores for a posterior: it begins with candidates chosen by the prior alone."""
    size = max(batch, START - len(tried))
    wanted = acquisition.first(prior, candidates.prices, size + len(tried), goal.seed)
    new = [index for index in wanted if index not in set(tried)][:size]
    unknown = np.full(len(candidates), np.nan)
    scores = dict(zip(tried, values, strict=True))
    pick = max(eligible, key=lambda index: scores[index]) if len(tried) else None
    proposals = [Proposal(index, float("nan"), float(candidates.prices[index])) for index in new]
    return Decision(pick, unknown, unknown, 1.0, 1.0, [], False, proposals)


def _chances(known: Posterior, pick: int, noise: Values, goal: Goal) -> tuple[float, float, Values]:
    """Return the probability of a loss above epsilon, that of another pick if all were tuned, and that of each candidate to be
    better than the pick by more than epsilon, shape (n,)."""
    normal = known.draws(DRAWS, goal.seed)
    draws = known.mean + (normal - known.mean) * _tails(len(known.tried), goal.seed)
    leads = draws - draws[:, [pick]]
    generator = np.random.default_rng([goal.seed, len(noise), 1])
    measured = draws + generator.normal(size=draws.shape) * _own(noise) ** 0.5
    measured[:, list(known.tried)] = -np.inf
    changing = (measured.max(axis=1) > known.mean[pick]).mean()
    return float((leads.max(axis=1) > goal.epsilon).mean()), float(changing), (leads > goal.epsilon).mean(axis=0)


def _tails(count: int, seed: int) -> Values:
    """Return factors of draws around their mean, shape (draws, 1), for a scale that is estimated from some scores.

    A normal draw times its factor is a draw from Student's t with count - 1 degrees of freedom.
    """
    freedom = max(count - 1, 1)
    return np.sqrt(freedom / np.random.default_rng([seed, count, 2]).chisquare(freedom, (DRAWS, 1)))


def _batch(
    known: Posterior, candidates: Candidates, values: Values, noise: Values, size: int, rule: str
) -> list[Proposal]:
    """Return the candidates with the highest value per GPU-hour, one after the other.

    Each further one is chosen as if the earlier ones had scored their posterior mean (the "kriging believer" of Ginsbourger et
    al. 2010), so that a batch does not hold the same bet twice.
    """
    proposals: list[Proposal] = []
    tried, scores = list(known.tried), np.asarray(values, dtype=float)
    while len(proposals) < size and len(tried) < len(candidates):
        worth = acquisition.RULES[rule](known)
        index = acquisition.order(
            worth / candidates.prices, [n for n in range(len(candidates)) if n not in set(tried)]
        )[0]
        proposals.append(Proposal(index, float(worth[index]), float(candidates.prices[index])))
        if len(proposals) < size:
            tried, scores, noise = [*tried, index], np.append(scores, known.mean[index]), _with_another(noise)
            known = surrogate.posterior(known.prior, tried, scores, noise)
    return proposals


def _own(noise: Values) -> float:
    """Return the mean variance of noise that a candidate does not share with the others."""
    count = len(noise)
    shared = (noise.sum() - np.trace(noise)) / (count * (count - 1)) if count > 1 else 0.0
    return max(0.0, float(np.trace(noise) / count - shared))


def _with_another(noise: Values) -> Values:
    """Return the covariance of noise with one more candidate, whose noise is like that of the others."""
    variances = _own(noise)
    shared = float(np.diag(noise).mean()) - variances
    wider = np.full((len(noise) + 1, len(noise) + 1), shared)
    wider[:-1, :-1] = noise
    wider[-1, -1] = shared + variances
    return wider
