"""Fits that differ in one column, against least squares of each on its own."""

from operator import itemgetter

import numpy as np
import pytest

from workflow.analysis import curves, laws
from workflow.analysis.curves import Curve
from workflow.analysis.fits import fits

STEPS = np.array([0.0, 1, 2, 4, 7, 11, 16, 22])
SHARED = np.stack([np.ones(8), STEPS], axis=1)
COLUMNS = np.stack([np.maximum(STEPS - 4, 0), np.sqrt(STEPS), 3 + 2 * STEPS])  # the last adds nothing to a line
CURVES = np.random.default_rng(0).normal(0.5, 0.1, (8, 5))


def left(column, curve):
    """Residuals of a curve after a fit of the shared columns and one more."""
    basis = np.column_stack([SHARED, column])
    return curve - basis @ np.linalg.lstsq(basis, curve, rcond=None)[0]


def test_residuals_are_those_of_least_squares():
    found = fits(SHARED, COLUMNS)
    direct = np.array([left(column, CURVES[:, 0]) for column in COLUMNS])
    assert found.residuals(CURVES[:, 0]) == pytest.approx(direct, abs=1e-13)
    assert found.squares(CURVES[:, 0]) == pytest.approx((direct**2).sum(axis=1))
    assert found.without_own().squares(CURVES[:, 0])[0] == pytest.approx((direct[2] ** 2).sum())


def test_squares_of_many_curves_are_those_of_each():
    found = fits(SHARED, COLUMNS)
    assert found.squares_of_many(CURVES) == pytest.approx(np.array([found.squares(curve) for curve in CURVES.T]).T)


def test_a_fit_without_error_leaves_exactly_nothing():
    found = fits(SHARED, COLUMNS)
    assert found.squares_of_many((0.3 + 0.1 * COLUMNS[:1] + 0.2 * STEPS).T)[0, 0] == 0


def test_expected_squares_of_noise_are_the_trace_of_its_projection():
    noise = np.cov(np.random.default_rng(1).normal(size=(8, 50)))
    projections = [left(column, np.eye(8)) for column in COLUMNS]
    assert fits(SHARED, COLUMNS).expected(noise) == pytest.approx([np.trace(one @ noise) for one in projections])


def test_held_out_errors_are_those_of_fits_without_each_step():
    """Each law, line and bend fitted anew to the other steps; that with the smallest residuals predicts the step."""
    steps = np.array([1.0, 2, 3, 5, 8, 12, 17])
    values = 0.2 + 0.1 * np.log(steps) + np.random.default_rng(2).normal(0, 0.02, 7)
    own = laws.scaled(steps, steps[-1])
    ones = np.ones(7)
    designs = {name: [np.stack([ones, shape(own)], 1) for shape in law(own[0])] for name, law in laws.LAWS.items()}
    designs["straight_line"] = [np.stack([ones, steps], 1)]
    knots = curves.bends(tuple(steps)).knots
    designs["bend"] = [np.stack([ones, steps, np.maximum(steps - at, 0)], 1) for at in knots]

    def missed(design, place):
        others = np.arange(7) != place
        weights, squares, *_ = np.linalg.lstsq(design[others], values[others], rcond=None)
        return round(float(squares[0]), 12), float(values[place] - design[place] @ weights)

    found = laws.held_out(Curve(steps, values, np.repeat(values[:, None], 10, axis=1)))
    for name, shapes in designs.items():
        errors = [min((missed(design, place) for design in shapes), key=itemgetter(0))[1] for place in range(1, 6)]
        assert found[name] == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_of_knots_that_fit_equally_well_without_a_step_the_first_predicts_it():
    """A jump after the first step: without the second, all knots up to the third are alike, and the second predicts it."""
    steps = np.arange(1.0, 8)
    values = np.where(steps > 1, 0.7, 0.2)
    assert laws.held_out(Curve(steps, values, np.repeat(values[:, None], 10, axis=1)))["bend"] == pytest.approx(
        0, abs=1e-9
    )
