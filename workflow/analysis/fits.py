"""Many least-squares fits to the same curves that differ in one column: lines with a bend, laws with a shape.

All fits share some columns: a constant, or a constant and the steps. Each has one column more. The shared columns are
projected out of it, which leaves a unit vector, so what a fit explains beyond them is the square of one product (Golub & Van
Loan 2013, section 5.3). A projection on the residuals of each fit would have steps x steps numbers instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

NOTHING = 1e-13  # share of a column or of a sum of squares that is 0 except for rounding


@dataclass(frozen=True)
class Fits:
    """shared: orthonormal columns that all fits have, shape (steps, shared columns); own: what they leave of the one column
    of each fit, as unit vectors, shape (fits, steps), 0 where nothing is left; lengths: by which it was divided, (fits,).
    """

    shared: Values
    own: Values
    lengths: Values

    def without_own(self) -> Fits:
        """The fit of the shared columns alone."""
        return Fits(self.shared, np.zeros((1, len(self.shared))), np.array([np.inf]))

    def beyond(self, curves: Values) -> Values:
        """What the shared columns leave of curves, shape (steps, …)."""
        return curves - self.shared @ (self.shared.T @ curves)

    def residuals(self, curve: Values) -> Values:
        """Residuals of a curve, shape (steps,): shape (fits, steps)."""
        rest = self.beyond(curve)
        return rest - (self.own @ rest)[:, None] * self.own

    def squares(self, curve: Values) -> Values:
        """Residual sums of squares of a curve, shape (steps,): shape (fits,)."""
        return (self.residuals(curve) ** 2).sum(axis=1)

    def squares_of_many(self, curves: Values) -> Values:
        """The same of curves, shape (steps, curves), without their residuals: shape (fits, curves)."""
        rest = self.beyond(curves)
        return remaining((rest**2).sum(axis=0), (self.own @ rest) ** 2)

    def expected(self, noise: Values) -> Values:
        """Expected residual sums of squares of noise with a covariance, shape (steps, steps): shape (fits,)."""
        rest = self.beyond(self.beyond(noise).T)
        return remaining(np.trace(rest), ((self.own @ rest) * self.own).sum(axis=1))

    def leverages(self) -> Values:
        """Derivative of each fitted value by its own value, shape (fits, steps)."""
        return (self.shared**2).sum(axis=1) + self.own**2


def fits(shared: Values, columns: Values) -> Fits:
    """Fits with the columns of `shared`, shape (steps, shared columns), and one of `columns` each, shape (fits, steps)."""
    basis = Fits(np.linalg.qr(shared)[0], np.empty((0, len(shared))), np.empty(0))
    rest = basis.beyond(basis.beyond(columns.T)).T  # twice, so that rounding leaves nothing of the shared columns
    lengths = np.linalg.norm(rest, axis=1)
    known = lengths > NOTHING * np.linalg.norm(columns, axis=1)
    own = np.divide(rest, lengths[:, None], out=np.zeros_like(rest), where=known[:, None])
    return Fits(basis.shared, own, np.where(known, lengths, np.inf))


def remaining(whole: Values, explained: Values) -> Values:
    """A sum of squares without the part that is explained; 0 where only rounding is left."""
    rest = whole - explained
    return np.where(rest > NOTHING * whole, rest, 0.0)
