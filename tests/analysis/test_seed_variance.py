"""The variance between seeds by hand and by simulation; what is drawn of it against Student's t."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workflow.analysis.seed_variance import Luck, pooled

FLAT = np.ones(7)


def test_seeds_of_all_bases_are_pooled_about_their_own_means() -> None:
    bases = [[np.array([0.5 * FLAT, 0.7 * FLAT])], [np.array([0.2 * FLAT, 0.2 * FLAT, 0.8 * FLAT])], [FLAT[None]]]
    found = pooled(bases, 1)
    assert (found.squares, found.freedom) == (pytest.approx(0.02 + 0.24), 3) and found.noise == pytest.approx(0)


def test_nothing_is_known_of_single_seeds() -> None:
    assert pooled([[np.ones((1, 5))], [np.zeros((1, 5))]], 1) is None


def test_a_mean_over_tests_has_the_luck_of_those_tuned_for_together() -> None:
    """Two tests after one tuning move together; of a third, after another tuning, only the share in the mean is known."""
    together = pooled([[np.array([0.5 * FLAT, 0.7 * FLAT])] * 2], 3)
    assert together.squares == pytest.approx(2 * 0.1**2 * (2 / 3) ** 2)


def test_rows_that_differ_between_seeds_are_no_luck() -> None:
    """Mean square of seeds and its part of rows against a two-way analysis of variance, and against what is simulated."""
    rng = np.random.default_rng(0)
    seeds, rows, bases = 3, 40, 500
    luck, left = 0.05, 0.4
    tuned = [
        0.5 + rng.normal(0, 0.3, rows) + rng.normal(0, luck, (seeds, 1)) + rng.normal(0, left, (seeds, rows))
        for _ in range(bases)
    ]
    one = tuned[0]
    residual = sum(
        (one[s, r] - one[s].mean() - one[:, r].mean() + one.mean()) ** 2 for s in range(seeds) for r in range(rows)
    )
    assert pooled([[one]], 1).noise == pytest.approx(residual / ((seeds - 1) * (rows - 1)) / rows)
    found = pooled([[own] for own in tuned], 1)
    assert found.noise == pytest.approx(left**2 / rows, rel=0.02)
    assert found.squares / found.freedom - found.noise == pytest.approx(luck**2, rel=0.2)


@pytest.mark.parametrize("freedom", [1, 2, 7])
def test_a_difference_of_two_bases_follows_student_s_t(freedom: int) -> None:
    draws, typical = Luck(freedom * 0.03**2, freedom, 0.0).draws(np.array([2, 3]), 4000, np.random.default_rng(0))
    difference = (draws[0] - draws[1]) / (0.03 * (1 / 2 + 1 / 3) ** 0.5)
    assert stats.kstest(difference, stats.t(freedom).cdf).pvalue > 0.01
    assert stats.kstest(typical[1] * 3**0.5 / 0.03, stats.norm.cdf).pvalue > 0.01


def test_spread_that_rows_explain_leaves_no_luck() -> None:
    draws, typical = Luck(20 * 0.01**2, 20, 0.02**2).draws(np.array([1, 1]), 1000, np.random.default_rng(0))
    assert (draws == 0).mean() > 0.9 and not typical.any()
