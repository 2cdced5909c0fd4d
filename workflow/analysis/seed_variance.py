"""The luck of tuning: how much a score would change with another seed, from the seeds of all bases of a question together.

A score of few seeds tells little of their spread: two seeds of one base have a single degree of freedom. Tunings of several
bases by one recipe are taken to be alike in it, so that their spreads are pooled, as the error of an analysis of variance is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workflow.statistics import Margins, normal_width, student_width

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Luck:
    """The variance between seeds of one base's score.

    squares: sum over bases of the squared deviations of its seeds' scores from their mean; freedom: its degrees of freedom,
    seeds less bases; noise: the part of squares / freedom that is left of the scored rows. Seeds of a base share their rows,
    so that is the interaction of seeds and rows alone, which resampled rows hold already.
    """

    squares: float
    freedom: int
    noise: float

    def margins(self, seeds: int) -> Margins:
        """Margins that luck adds to a mean of some seeds' scores, beside those of the scored rows.

        Student's t of the variance between seeds, less what the rows' own margins hold of it already.
        """

        def margins(level: float) -> tuple[float, float]:
            whole = student_width(level, self.freedom) ** 2 * self.squares / self.freedom
            half = (max(0.0, whole - normal_width(level) ** 2 * self.noise) / seeds) ** 0.5
            return half, half

        return margins

    def draws(self, seeds: Values, resamples: int, generator: np.random.Generator) -> tuple[Values, Values]:
        """What luck may have added to the mean score of each base, shape (bases, resamples); seeds: of each, shape (bases,).

        The variance is unknown as well: each resample draws it, one for all bases, from its fiducial distribution
        (Tsui & Weerahandi 1989), so that without rows' noise a difference of two bases follows Student's t. The second is the
        same luck at the variance as estimated: its tails are a normal distribution's, so that means of it can be taken.
        """
        variances = np.maximum(0.0, self.squares / generator.chisquare(self.freedom, resamples) - self.noise)
        estimated = max(0.0, self.squares / self.freedom - self.noise)
        luck = generator.normal(size=(len(seeds), resamples)) / np.sqrt(seeds)[:, None]
        return luck * np.sqrt(variances), luck * np.sqrt(estimated)


def pooled(bases: Sequence[Sequence[Values]], tests: int) -> Luck | None:
    """The luck of one tuning in a mean over tests; None where no base has two seeds, so that nothing is known of it.

    bases: of each base the values on each test that is tested after this tuning, shape (seeds, rows); tests: of the mean, those
    after other tunings included.
    """
    squares = noise = 0.0
    freedom = 0
    for own in bases:
        scores = np.sum([values.mean(axis=1) for values in own], axis=0) / tests
        squares += float(((scores - scores.mean()) ** 2).sum())
        noise += sum(_interaction(values) for values in own) / tests**2
        freedom += len(scores) - 1
    return Luck(squares, freedom, noise / freedom) if freedom else None


def _interaction(values: Values) -> float:
    """Sum over seeds of the squared deviations that rows lend to their means. values: shape (seeds, rows)."""
    left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    rows = values.shape[1]
    return float((left**2).sum() / (rows * max(1, rows - 1)))
