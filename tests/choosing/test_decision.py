"""The posterior is that of an independent implementation; a race picks, stops and proposes as its rules say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT
from scipy.stats import norm, t
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from workflow.choosing import acquisition, candidates, decision, surrogate
from workflow.choosing.decision import Goal

sys.path.insert(0, str(ROOT / "benchmarks"))

FEATURES = np.array([[0.0], [0.5], [1.1], [2.0], [2.2]])
TRIED = [0, 2, 3]
SCORES = np.array([0.61, 0.70, 0.66])
NOISE = np.diag([0.01, 0.02, 0.01]) ** 2


def prior_of(*covariances: kernels.Kernel) -> surrogate.Prior:
    return surrogate.Prior(np.stack([kernel(FEATURES) for kernel in covariances]), np.zeros((len(covariances), 5)))


def fitted(kernel: kernels.Kernel) -> tuple[GaussianProcessRegressor, float, float]:
    """scikit-learn's process on the scores in units of their own mean and standard deviation."""
    centre, unit = SCORES.mean(), SCORES.std()
    alpha = np.diag(NOISE) / unit**2 + surrogate.JITTER
    model = GaussianProcessRegressor(kernel, optimizer=None, alpha=alpha)
    return model.fit(FEATURES[TRIED], (SCORES - centre) / unit), centre, unit


# The posterior


def test_normal_scores_by_hand() -> None:
    scores = candidates.normal_scores(np.array([30.0, -5.0, np.nan, 7.0, 7.0]))
    assert scores == pytest.approx([norm.ppf(7 / 8), norm.ppf(1 / 8), 0.0, 0.0, 0.0])


def test_columns_without_information_are_left_out() -> None:
    known = candidates.described(
        ["a", "b", "c"], {"x": [1, 1, 1], "y": [3, 1, 2]}, {"f": ["p", "q", "q"], "g": [4, 4, 4]}
    )
    assert known.indicators.shape == (3, 1) and known.numbers.shape == (3, 0)
    assert known.labels[:, 0].tolist() == [0, 1, 1]


def test_one_draw_is_the_process_of_scikit_learn() -> None:
    kernel = 1.3 * kernels.RBF(0.7) + kernels.ConstantKernel(1.0)
    model, centre, unit = fitted(kernel)
    mean, deviation = model.predict(FEATURES, return_std=True)
    known = surrogate.posterior(prior_of(kernel), TRIED, SCORES, NOISE)
    assert known.mean == pytest.approx(centre + unit * mean, abs=1e-9)
    assert known.deviation == pytest.approx(unit * deviation, abs=1e-6)


def test_a_trend_is_what_the_process_deviates_from() -> None:
    kernel, trend = 1.3 * kernels.RBF(0.7) + kernels.ConstantKernel(1.0), np.array([0.0, 0.4, 1.0, 1.5, 2.0])
    centre, unit = SCORES.mean(), SCORES.std()
    alpha = np.diag(NOISE) / unit**2 + surrogate.JITTER
    model = GaussianProcessRegressor(kernel, optimizer=None, alpha=alpha)
    model.fit(FEATURES[TRIED], (SCORES - centre) / unit - trend[TRIED])
    prior = surrogate.Prior(kernel(FEATURES)[None], trend[None])
    known = surrogate.posterior(prior, TRIED, SCORES, NOISE)
    assert known.mean == pytest.approx(centre + unit * (trend + model.predict(FEATURES)), abs=1e-9)
    drawn = prior.draws(200_000, seed=0)
    assert drawn.mean(axis=0) == pytest.approx(trend, abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(kernel(FEATURES), abs=0.03)


def test_progress_is_the_share_of_a_run() -> None:
    known = candidates.described(list("abcd"), {}, {}, ["r", "r", "s", "s"], None, [10, 40, 100, 50])
    assert known.progress == pytest.approx(candidates.normal_scores(np.array([0.25, 1.0, 1.0, 0.5])))
    assert candidates.described(list("ab"), {}, {}).progress.tolist() == [0.0, 0.0]


def test_the_prior_expects_high_indicators_and_late_steps_to_be_good() -> None:
    known = candidates.described(list("abcd"), {"i": [1, 4, 3, 2]}, {}, [0] * 4, None, [2, 1, 4, 3])
    slopes = np.linalg.lstsq(np.column_stack([known.indicators, known.progress]), surrogate.prior(known, 0).means.T)[0]
    assert (slopes > 0).all(), "in each draw"


def test_draws_of_hyperparameters_weigh_by_their_marginal_likelihood() -> None:
    both = [1.3 * kernels.RBF(0.3), 0.5 * kernels.RBF(3.0) + kernels.ConstantKernel(2.0)]
    likelihoods = np.array([fitted(kernel)[0].log_marginal_likelihood_value_ for kernel in both])
    known = surrogate.posterior(prior_of(*both), TRIED, SCORES, NOISE)
    assert known.weights == pytest.approx(np.exp(likelihoods) / np.exp(likelihoods).sum())


def test_joint_draws_have_the_covariance_of_scikit_learn() -> None:
    kernel = 1.3 * kernels.RBF(0.7) + kernels.ConstantKernel(1.0)
    model, centre, unit = fitted(kernel)
    mean, covariance = model.predict(FEATURES, return_cov=True)
    drawn = surrogate.posterior(prior_of(kernel), TRIED, SCORES, NOISE).draws(100_000, seed=0)
    assert drawn.mean(axis=0) == pytest.approx(centre + unit * mean, abs=5e-4)
    assert np.cov(drawn.T) == pytest.approx(unit**2 * covariance, abs=5e-5)


def test_noise_that_all_share_moves_no_difference() -> None:
    kernel = 1.3 * kernels.RBF(0.7) + kernels.ConstantKernel(1e4)  # of scores whose mean is unknown
    own = surrogate.posterior(prior_of(kernel), TRIED, SCORES, NOISE + 1e-9)
    shared = surrogate.posterior(prior_of(kernel), TRIED, SCORES, NOISE + 4e-4)
    assert np.diff(own.mean) == pytest.approx(np.diff(shared.mean), abs=1e-4)


def test_a_failed_run_does_not_stretch_the_scale() -> None:
    scores = np.array([0.36, 0.37, 0.38, 0.37, 0.0015])
    assert surrogate.clipped(scores).tolist()[:4] == scores.tolist()[:4]
    assert surrogate.clipped(scores)[4] == pytest.approx(0.37 - 4 * 1.4826 * 0.01)


def test_expected_improvement_by_simulation() -> None:
    known = surrogate.posterior(prior_of(1.3 * kernels.RBF(0.7)), TRIED, SCORES, NOISE * 1e-6)
    drawn = known.draws(200_000, seed=1)
    gain = np.maximum(drawn - SCORES.max(), 0).mean(axis=0)
    assert acquisition.expected_improvement(known)[[1, 4]] == pytest.approx(gain[[1, 4]], abs=2e-4)


# A race


def line(count: int) -> tuple[candidates.Candidates, np.ndarray]:
    """Candidates whose single indicator is right but for a little."""
    rng = np.random.default_rng(0)
    truth = np.linspace(0.4, 0.6, count)
    indicator = truth + rng.normal(0, 0.02, count)
    return candidates.described([str(place) for place in range(count)], {"i": indicator}, {}), truth


def raced(known: candidates.Candidates, truth: np.ndarray, goal: Goal, batch: int = 1) -> list[decision.Decision]:
    """All decisions until a race is settled."""
    tried: list[int] = []
    decisions = []
    while True:
        decisions.append(decision.decide(known, tried, truth[tried], np.zeros((len(tried),) * 2), goal, batch))
        if decisions[-1].settled:
            return decisions
        tried += [one.candidate for one in decisions[-1].batch]


def test_a_race_finds_the_best_and_stops() -> None:
    known, truth = line(30)
    decisions = raced(known, truth, Goal(0.01, 0.05, 0))
    last, tuned = decisions[-1], sum(len(one.batch) for one in decisions[:-1])
    assert last.pick is not None and truth.max() - truth[last.pick] <= 0.01
    assert last.losing <= 0.05 and tuned < 15
    assert all(truth[place] <= truth[last.pick] + 0.01 for place in last.out)
    assert last.pick not in last.out
    assert raced(known, truth, Goal(0.01, 0.05, 0))[-1].losing == last.losing, "the same seed, the same race"


def test_what_is_far_below_the_pick_is_out() -> None:
    known, truth = line(30)
    tried = [*range(0, 25, 4), 27, 28, 29]
    seen = decision.decide(known, tried, truth[tried], np.zeros((10, 10)), Goal(0.01, 0.05, 0))
    low = [place for place in range(30) if truth[place] < 0.5]
    assert len(set(low) & set(seen.out)) > len(low) / 2
    assert seen.pick not in seen.out and all(truth[place] < truth.max() for place in seen.out)


def test_a_batch_has_different_candidates_and_none_that_is_tuned() -> None:
    known, truth = line(30)
    tried = [0, 10, 20, 29]
    batch = decision.decide(known, tried, truth[tried], np.zeros((4, 4)), Goal(0.001, 0.05, 0), 5).batch
    numbers = [one.candidate for one in batch]
    assert len(set(numbers)) == 5 and not set(numbers) & set(tried)


def test_of_equal_candidates_the_cheaper_is_tuned_first() -> None:
    prices = np.ones(12)
    prices[11] = 0.5
    indicator = [*np.linspace(0, 1, 11), 1.0]
    known = candidates.described([str(n) for n in range(12)], {"i": indicator}, {}, prices=prices)
    tried = [0, 3, 6, 8]
    batch = decision.decide(known, tried, np.array([0.1, 0.3, 0.6, 0.8]), np.zeros((4, 4)), Goal(0.01, 0.05, 0)).batch
    assert [one.candidate for one in batch] == [11]


def test_a_race_does_not_stop_on_an_expectation() -> None:
    # The five late steps of ten are alike. Whether the early ones are worse is expected, and not known.
    known = candidates.described([str(n) for n in range(10)], {"i": range(10)}, {}, [0] * 10, None, range(1, 11))
    tried, scores = [5, 6, 7, 8, 9], np.array([0.70, 0.71, 0.70, 0.71, 0.705])
    prior, goal = surrogate.prior(known, 0), Goal(0.005, 0.05, 0)
    seen = decision.decide(known, tried, scores, np.zeros((5, 5)), goal)
    hopeful = surrogate.posterior(prior, tried, scores, np.zeros((5, 5)))
    expected = decision._chances(hopeful, seen.pick, np.zeros((5, 5)), goal)[0]
    assert seen.losing > expected and not seen.settled
    assert prior.flat.covariances is prior.covariances and not prior.flat.means.any() and prior.means.any()


def test_all_tuned_is_settled() -> None:
    known, truth = line(4)
    last = decision.decide(known, [0, 1, 2, 3], truth, np.zeros((4, 4)), Goal(0.01, 0.05, 0))
    assert last.settled and last.pick == 3 and last.losing == 0.0 and last.batch == []


def test_a_race_begins_with_what_adds_most_to_the_best() -> None:
    means, covariance = np.array([[1.0, 0.9, 0.5, -9.0]]), np.eye(4)
    covariance[0, 1] = covariance[1, 0] = 0.999  # the second is like the first, and no better
    prior = surrogate.Prior(covariance[None], means)
    assert acquisition.first(prior, np.ones(4), 3, 0)[:2] == [0, 2]
    assert acquisition.first(prior, np.array([1.0, 1.0, 9999.0, 1.0]), 2, 0) == [0, 1], "for its price"
    # E max(f2 - f0, 0) of a difference with mean -.5 and variance 2, against f1 - f0 with mean -.1 and variance .002
    gain = 2**0.5 * (norm.pdf(0.5 / 2**0.5) - 0.5 / 2**0.5 * norm.sf(0.5 / 2**0.5))
    drawn = prior.draws(200_000, 1)
    assert np.maximum(drawn[:, 2] - drawn[:, 0], 0).mean() == pytest.approx(gain, abs=5e-3)


def test_a_race_begins_with_late_steps_of_high_indicators() -> None:
    known = candidates.described(list("abcdef"), {"i": range(6)}, {}, [0] * 6, None, range(6))
    begun = decision.decide(known, [], np.zeros(0), np.zeros((0, 0)), Goal(0.01, 0.05, 0), 3)
    assert begun.batch[0].candidate == 5
    assert len({one.candidate for one in begun.batch}) == 3 and not begun.settled and begun.pick is None
    single = decision.decide(known, [], np.zeros(0), np.zeros((0, 0)), Goal(0.01, 0.05, 0), 1)
    assert len(single.batch) == decision.START, "one score says nothing of the others"


@pytest.mark.parametrize("count", [5, 9])
def test_chances_have_the_tails_of_student(count: int) -> None:
    tried, scores = list(range(count)), np.linspace(0, 1, count)
    prior = surrogate.Prior(np.eye(count + 1)[None] + np.ones((1, count + 1, count + 1)), np.zeros((1, count + 1)))
    known = surrogate.posterior(prior, tried, scores, np.zeros((count, count)))
    away = (scores[-1] + 0.5 - known.mean[-1]) / known.deviation[-1]  # the pick's score is known, so it does not vary
    losing = decision._chances(known, count - 1, np.zeros((count, count)), Goal(0.5, 0.05, 0))[0]
    assert losing == pytest.approx(t.sf(away, count - 1), abs=3 * (0.25 / decision.DRAWS) ** 0.5)
    assert losing > norm.sf(away)


@pytest.mark.slow
def test_published_variants_take_a_quarter_of_the_tunings(monkeypatch: pytest.MonkeyPatch) -> None:
    import selecting

    monkeypatch.chdir(ROOT)
    for table in selecting.variants():
        monkeypatch.setitem(selecting.TABLES, table.name, table)
        for noise in ("none", "grids"):
            rows = list(selecting.replays(table, "race", selecting.METHODS["race"], noise, range(2), 13))
            assert all(row["losses"][-1] <= selecting.MARGIN + 1e-9 for row in rows), table.name


def test_replays_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    import selecting

    monkeypatch.chdir(ROOT)
    table = next(selecting.variants())
    monkeypatch.setitem(selecting.TABLES, table.name, table)
    given = argparse.Namespace(
        out=tmp_path / "out", noise="none", methods=["random order"], replays=2, budget=5, chosen=None
    )
    selecting.run(given)
    first = given.out.read_text()
    given.replays = 3
    selecting.run(given)
    assert given.out.read_text().startswith(first) and len(given.out.read_text().splitlines()) == 3
