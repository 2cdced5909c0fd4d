"""Lines and knots of curves against scipy, brute force and curves with known truth."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from workflow import statistics
from workflow.analysis import curves
from workflow.analysis.curves import Curve
from workflow.analysis.evidence import PAIR_KEYS, Reported, Sample
from workflow.statistics import Resampling

HOW = Resampling(resamples=500, level=0.95, seed=0)
STEPS = np.array([1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020], dtype=float)
EVEN = np.arange(0, 800_001, 100_000, dtype=float)


def sure(steps, values):
    """A curve without noise of rows."""
    return Curve(np.asarray(steps, float), np.asarray(values, float), np.tile(np.asarray(values, float)[:, None], 50))


def sampled(steps, values, noise, seed=0):
    """A curve whose resamples have a covariance."""
    rng = np.random.default_rng(seed)
    return Curve(steps, values, rng.multivariate_normal(values, noise, size=4000).T)


# Student's t


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 6, 30, 41, 5000, np.inf])
def test_student_equals_scipy_s(freedom):
    theirs = stats.norm if freedom == np.inf else stats.t(freedom)
    for level in (0.5, 0.95, 0.999):
        assert statistics.student_width(level, freedom) == pytest.approx(theirs.ppf((1 + level) / 2), rel=1e-4)
    for value in (0.0, 0.3, -2.0, 4.0):
        assert statistics.student_tail(value, freedom) == pytest.approx(2 * theirs.sf(abs(value)), rel=1e-4)


# Curves


def test_points_are_ordered_by_step():
    keys = dict.fromkeys(PAIR_KEYS, "x")
    points = [Reported({**keys, "step": step}, step / 100, 0.0) for step in (30, 10, 20)]
    found = curves.curve(points, HOW)
    assert found.steps.tolist() == [10, 20, 30] and found.values.tolist() == [0.1, 0.2, 0.3]
    assert found.draws.shape == (3, 500) and np.abs(found.noise).max() == pytest.approx(0)


def test_steps_on_the_same_rows_share_their_noise():
    """Two steps on the same ten rows, the second .1 better on each: variances and covariance are all that of one."""
    values = np.random.default_rng(0).normal(size=(1, 10))
    points = [Sample({**dict.fromkeys(PAIR_KEYS, "x"), "step": step}, values + step / 10) for step in (1, 2)]
    noise = curves.curve(points, HOW).noise
    assert noise == pytest.approx(np.full((2, 2), values.var() / 10), rel=0.2)
    assert noise == pytest.approx(np.full((2, 2), noise[0, 0]))


# Straight lines


def test_trend_without_noise_of_rows_equals_scipy_s_regression():
    """Slope for 100,000 steps, interval by Student's t with six degrees of freedom, p-value."""
    values = np.random.default_rng(1).normal(size=8)
    found, theirs = curves.trend(sure(STEPS, values)), stats.linregress(STEPS / 1e5, values)
    half = stats.t(6).ppf(0.975) * theirs.stderr
    assert found.value == pytest.approx(theirs.slope)
    assert found.bounds(0.95) == pytest.approx((theirs.slope - half, theirs.slope + half), rel=1e-5)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-4)


def test_level_of_a_line_by_hand():
    """0 1 2 3 without noise: at 10 the line is 10; what scatters by ±1 around 0 has its mean at 0 with error 1/√3 / 2."""
    straight = curves.line(sure([0, 1, 2, 3], [0, 1, 2, 3]), np.arange(4.0))
    assert straight.combination(1, 10).value == pytest.approx(10) and straight.combination(1, 10).error < 1e-9
    crossed = curves.line(sure([0, 1, 2, 3], [1, -1, -1, 1]), np.arange(4.0))
    mean = crossed.combination(1, 1.5)
    assert (mean.value, mean.error, mean.freedom) == (pytest.approx(0), pytest.approx(np.sqrt(4 / 2 / 4)), 2)


def test_a_line_s_error_is_never_below_that_of_its_rows():
    """A curve that is exactly straight, but whose rows have a standard error of .01 each."""
    found = curves.trend(sampled(EVEN, EVEN / 1e6, 1e-4 * np.eye(9)))
    assert found.error == pytest.approx(0.01 / np.sqrt(((EVEN / 1e5 - 4) ** 2).sum()), rel=0.05)
    assert found.bounds(0.95)[1] - found.value == pytest.approx(1.96 * found.error, rel=0.01)


def test_what_all_steps_share_does_not_blur_a_slope():
    values = np.random.default_rng(2).normal(size=9)
    shared = curves.trend(sampled(EVEN, values, 4.0 * np.ones((9, 9)) + 1e-12 * np.eye(9)))
    assert shared.error == pytest.approx(curves.trend(sure(EVEN, values)).error, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_an_estimate_without_error_has_neither_interval_nor_p_value(value):
    assert curves.Estimate(value, 0.0, 4).figures(0.95) == {"value": value, "low": None, "high": None, "p_value": None}


def test_an_estimate_of_many_errors_has_a_p_value_above_0():
    assert 0 < curves.Estimate(1.0, 1e-3, 1e6).p_value <= 1e-12


def test_progress_by_hand():
    """From 0: log10(1 + 0), log10(1 + 1), log10(1 + 9): the first step that is trained stands a doubling above none."""
    assert curves.progress(np.array([0.0, 300, 2700])) == pytest.approx([0, np.log10(2), 1])
    assert curves.progress(np.array([1000.0, 9000])) == pytest.approx([np.log10(2), 1])


# Knots


def bent(steps, at, before, after):
    """Slopes for 100,000 steps."""
    return 0.2 + before * np.minimum(steps, at) / 1e5 + after * np.maximum(steps - at, 0) / 1e5


def test_a_bent_line_without_noise_is_found_exactly():
    found = curves.knot(sure(EVEN, bent(EVEN, 300_000, 0.1, 0.01)), HOW)
    assert found.step == 300_000 and found.p_value < 0.01
    assert found.before.value == pytest.approx(0.1) and found.after.value == pytest.approx(0.01)
    assert 280_000 < found.low <= 300_000 <= found.high < 320_000


def test_candidates_stand_from_the_second_place_to_the_last_but_one():
    """738000 and 738020 are one place: no slope can be seen between them."""
    knots = curves.bends(tuple(STEPS)).knots
    assert knots[0] == 18_000 and knots[-1] == 592_000 and {342_000, 424_000, 505_000} <= set(knots)


@pytest.mark.parametrize(("steps", "fits"), [(STEPS, True), (STEPS[:4], False), ([0, 1, 2, 3, 1000], False)])
def test_which_curves_may_have_a_knot(steps, fits):
    assert curves.bendable(sure(steps, np.zeros(len(steps)))) == fits


def test_a_straight_line_has_the_whole_range():
    rng = np.random.default_rng(3)
    found = curves.knot(sure(EVEN, EVEN / 1e6 + rng.normal(0, 0.01, 9)), HOW)
    assert found.p_value > 0.05 and (found.low, found.high) == (0, 800_000)


@pytest.mark.parametrize("values", [np.zeros(9), np.full(9, 0.3), EVEN / 1e6])
def test_a_curve_without_any_scatter_is_straight(values):
    found = curves.knot(sure(EVEN, values), HOW)
    assert (found.low, found.high, found.p_value) == (0, 800_000, 1)
    assert found.after.value == pytest.approx((values[-1] - values[0]) / 8, abs=1e-12)
    assert found.after.low == pytest.approx(found.after.high, abs=1e-9)


def test_a_set_that_holds_the_second_step_begins_at_the_first():
    """A curve that jumps once, at its start: the knot is anywhere before the second step."""
    rng = np.random.default_rng(4)
    found = curves.knot(sure(EVEN, np.where(EVEN > 0, 0.8, 0.2) + rng.normal(0, 0.01, 9)), HOW)
    assert found.step == 100_000 and found.low == 0 and found.high < 200_000


def test_a_slope_s_interval_holds_what_fits_with_some_knot():
    """Ends against brute force: at them the best fit with that slope is worse by the quantile of F, with one knot or other."""
    values = bent(EVEN, 320_000, 0.05, 0.01) + np.random.default_rng(5).normal(0, 0.01, 9)
    found = curves.knot(sure(EVEN, values), HOW)
    knots = curves.bends(tuple(EVEN)).knots
    x = EVEN / 1e5

    def least(slope=None):
        """Sum of squares of the best fit, with a slope after the knot that is given or free."""
        best = np.inf
        for at in knots / 1e5:
            basis = np.stack([np.ones(9), np.minimum(x, at), np.maximum(x - at, 0)], axis=1)
            known = 0 if slope is None else slope * basis[:, 2]
            free = basis if slope is None else basis[:, :2]
            rest = values - known
            best = min(best, ((rest - free @ np.linalg.lstsq(free, rest, rcond=None)[0]) ** 2).sum())
        return best

    allowed = least() * (1 + stats.f(1, 5).ppf(0.95) / 5)
    for outside, end in ((-1.0, found.after.low), (1.0, found.after.high)):
        crossing = optimize.brentq(lambda slope: least(slope) - allowed, found.after.value, outside)
        assert end == pytest.approx(crossing, abs=1e-6)
    statistic = 5 * (least(0.0) / least() - 1)
    assert found.after.p_value == pytest.approx(stats.f(1, 5).sf(statistic), rel=1e-3)


def test_a_slope_s_interval_is_never_narrower_than_its_rows_make_it():
    found = curves.knot(sampled(EVEN, bent(EVEN, 300_000, 0.1, 0.01), 1e-4 * np.eye(9)), HOW)
    alone = 1.96 * 0.01 / np.sqrt(((np.arange(6) - 2.5) ** 2).sum())  # a line through the six last steps
    assert found.after.high - found.after.low > alone


def test_knots_are_the_same_at_each_call():
    values = bent(STEPS, 200_000, 0.1, 0.0) + np.random.default_rng(6).normal(0, 0.02, 8)
    assert curves.knot(sure(STEPS, values), HOW) == curves.knot(sure(STEPS, values), HOW)


@pytest.mark.parametrize(("item", "scatter"), [(0.01, 0.0), (0.005, 0.02), (0.02, 0.02)])
def test_intervals_hold_the_truth_as_often_as_they_say(item, scatter):
    """150 curves each, at least 90 %: with 95 % fewer would be found once in 250 times. Not much more than needed either."""
    how, rng = Resampling(200, 0.95, 0), np.random.default_rng(7)
    truth, hits, whole = bent(EVEN, 320_000, 0.1, 0.01), [], 0
    for number in range(150):
        values = truth + rng.normal(0, item, 9) + rng.normal(0, scatter, 9)
        found = curves.knot(sampled(EVEN, values, item**2 * np.eye(9), number), how)
        hits.append((found.low <= 320_000 <= found.high, found.before.low <= 0.1 <= found.before.high,
                     found.after.low <= 0.01 <= found.after.high))  # fmt: skip
        whole += found.low == 0 and found.high == 800_000
    assert (np.mean(hits, axis=0) > 0.9).all() and whole < 15


def test_a_straight_line_is_called_bent_as_seldom_as_it_says():
    how, rng = Resampling(200, 0.95, 0), np.random.default_rng(8)
    tested = [curves.knot(sure(STEPS, rng.normal(0, 0.02, 8)), how).p_value for _ in range(200)]
    assert np.mean(np.array(tested) <= 0.05) < 0.1
    assert stats.kstest(tested, "uniform").pvalue > 0.001


def test_noise_is_simulated_as_it_was_measured():
    """Rows' covariance, and unit variance between steps, in what the candidates leave of both."""
    noise = np.array([[2.0, 1, 0], [1, 2, 0.5], [0, 0.5, 1]])
    noise = np.kron(noise, np.eye(3)) / 100
    curve = sampled(EVEN, np.zeros(9), noise)
    found = curves.bends(tuple(EVEN))
    simulated = curves.simulations(curve, found, Resampling(20_000, 0.95, 0))
    assert np.cov(simulated.sampled.T) == pytest.approx(curve.noise, abs=0.001)
    for place, scatter in itertools.product((0, 20, len(found.knots) - 1), (0.0, 0.3)):
        basis = np.stack([np.ones(9), EVEN, np.maximum(EVEN - found.knots[place], 0)], axis=1)
        drawn = (simulated.sampled + scatter * simulated.scattered).T
        assert simulated.left(scatter)[place] == pytest.approx(np.linalg.lstsq(basis, drawn, rcond=None)[1])
