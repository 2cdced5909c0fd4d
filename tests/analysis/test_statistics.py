"""Bootstrap intervals against scipy, by their coverage, and by hand."""

import numpy as np
import pytest
from scipy import stats

from workflow import statistics
from workflow.statistics import Resampling


def how(resamples=2000, level=0.95, seed=0):
    return Resampling(resamples=resamples, level=level, seed=seed)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_mean_s_interval_equals_scipy_s(level):
    """Both ends within 5 standard errors of a quantile of 20,000 resamples; the standard deviation within 3 %."""
    values = np.random.default_rng(0).exponential(size=80)
    found = statistics.mean(values, how(20_000, level))
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    spread = theirs.standard_error
    tail = (1 - level) / 2
    density = stats.norm.pdf(stats.norm.ppf(tail)) / spread
    error = 5 * np.sqrt(2 * tail * (1 - tail) / 20_000) / density
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=error)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=error)
    assert how(20_000).means(values).std(ddof=1) == pytest.approx(spread, rel=0.03)
    assert (found.value, found.n) == (values.mean(), 80)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """400 samples of 100 coin flips with heads in 30 %."""
    rng = np.random.default_rng(2)
    samples = rng.binomial(1, 0.3, size=(400, 100)).astype(float)
    for level, least, most in ((0.95, 0.91, 0.98), (0.5, 0.42, 0.6)):
        intervals = [statistics.mean(sample, how(500, level, seed)) for seed, sample in enumerate(samples)]
        assert least < np.mean([found.low <= 0.3 <= found.high for found in intervals]) < most


def test_bounds_by_hand():
    estimates = np.arange(1001.0)
    assert how(level=0.9).bounds(estimates) == pytest.approx((50, 950))
    assert how(level=0.5).bounds(estimates[::-1]) == pytest.approx((250, 750))
    assert how().bounds(np.full(10, 7.0)) == (7.0, 7.0)


def test_weights_are_multiplicities_drawn_by_the_seed_alone():
    one, again, other = (next(how(seed=seed).weights(30)) for seed in (0, 0, 1))
    assert one.shape == (2000, 30) and np.array_equal(one, again) and not np.array_equal(one, other)
    assert (one.sum(axis=1) == 30).all() and (one == one.astype(int)).all() and one.min() >= 0
    np.random.seed(5)
    assert np.array_equal(one, next(how().weights(30)))
    # How often a unit is drawn: binomial with 30 draws of 1/30 each.
    assert one.mean() == 1 and one.var() == pytest.approx(29 / 30, rel=0.02)


def test_blocks_change_nothing():
    """Rows too many for one block: the blocks together are the draw that one block would be."""
    n, resamples = 50_000, 100
    blocks = list(how(resamples).weights(n))
    assert [len(block) for block in blocks] == [80, 20]
    whole = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    assert np.array_equal(np.concatenate(blocks), whole)
    values = np.random.default_rng(1).normal(size=n)
    assert how(resamples).means(values) == pytest.approx(whole @ values / n)


def test_resamples_that_are_too_many_to_cache_are_of_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn in another way, block by block: whole resamples, the same ones at each call, multiplicities of variance 1 - 1/n."""
    monkeypatch.setattr(statistics, "KEPT", 1000)
    monkeypatch.setattr(statistics, "BLOCK", 3000)
    blocks = list(how().weights(30))
    assert len(blocks) == 20 and all(block.shape == (100, 30) for block in blocks)
    drawn = np.concatenate(blocks)
    assert (drawn.sum(axis=1) == 30).all() and np.array_equal(drawn, np.concatenate(list(how().weights(30))))
    assert drawn.var() == pytest.approx(29 / 30, rel=0.02)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(30), abs=0.1)
    covariance = np.cov(drawn.T)[np.triu_indices(30, 1)]
    assert covariance.mean() == pytest.approx(-1 / 30, rel=0.05)


def test_columns_share_their_resamples() -> None:
    columns = np.random.default_rng(2).normal(size=(40, 3))
    drawn = np.concatenate(list(how().weights(40)))
    assert how().sums(columns) == pytest.approx(drawn @ columns)


def test_statistics_of_the_same_units_are_resampled_together():
    values = np.random.default_rng(1).normal(size=50)
    assert how().means(values + 3) - how().means(values) == pytest.approx(np.full(2000, 3.0))


@pytest.mark.parametrize(
    ("resampled", "expected"),
    [
        (np.ones(999), 2 / 1000),
        (-np.ones(999), 2 / 1000),
        (np.concatenate([np.ones(990), -np.ones(9)]), 2 * 10 / 1000),
        (np.concatenate([np.ones(500), -np.ones(499)]), 1.0),
        (np.zeros(999), 1.0),
    ],
)
def test_p_value_by_hand(resampled, expected):
    assert statistics.p_value(resampled) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_margins_of_0_give_neither_interval_nor_p_value(value):
    """Rows that are all alike, a single row, a standard error of 0: nothing is known of chance, so nothing is significant."""
    assert statistics.tested(value, statistics.normal(0.0)) is None
    assert statistics.ends(value, statistics.normal(1e-18), 0.95) == (None, None)


def test_margins_that_are_0_on_one_side_are_known():
    """All of 40 rows right: the share cannot be higher, and how much lower is known."""
    low, high = statistics.ends(1.0, statistics.share(1.0, 40), 0.95)
    assert high == 1 and 0.89 < low < 0.92


def test_a_weight_counts_a_value_that_often():
    values, weights = np.array([3.0, 1.0, 7.0]), np.array([1.0, 2.0, 1.0])
    assert statistics.weighted_mean(values, weights) == np.mean([3, 1, 1, 7])
    assert statistics.weighted_median(values, weights) == np.median([3, 1, 1, 7]) == 2


def test_the_weighted_median_equals_numpy_s_of_repeated_values():
    rng = np.random.default_rng(4)
    values, weights = rng.normal(size=(50, 7)), rng.integers(1, 4, size=(50, 7)).astype(float)
    expected = [np.median(np.repeat(v, w.astype(int))) for v, w in zip(values, weights, strict=True)]
    assert statistics.weighted_median(values, weights) == pytest.approx(expected)
