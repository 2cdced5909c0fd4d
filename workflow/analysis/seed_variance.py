"""Variance between fine-tuning seeds: how much a score would change with another seed, pooled over all bases of a question.

The spread of few seeds is uncertain: two seeds of one base have a single degree of freedom. Bases fine-tuned with one recipe
are assumed to have the same variance, so that it can be pooled like the error of an analysis of variance.
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

    squares: sum over bases of the squared deviations of their seeds' scores from their mean; freedom: degrees of freedom,
    seeds minus bases; noise: the part of squares / freedom that comes from the scored rows. Seeds of a base share their
    rows, so this is only the interaction of seeds and rows, which resampled rows include already.
    """

    squares: float
    freedom: int
    noise: float

    def margins(self, seeds: int) -> Margins:
        """Margins that the seed variance adds to those of the scored rows in a mean over seeds.

        Student's t of the variance between seeds, less the part that the margins of rows include already.
        """

        def margins(level: float) -> tuple[float, float]:
            whole = student_width(level, self.freedom) ** 2 * self.squares / self.freedom
            half = (max(0.0, whole - normal_width(level) ** 2 * self.noise) / seeds) ** 0.5
            return half, half

        return margins

    def draws(self, seeds: Values, resamples: int, generator: np.random.Generator) -> tuple[Values, Values]:
        """Draws of the seed variance in the mean score of each base, shape (bases, resamples). seeds: of each base, shape
        (bases,).

        The variance itself is uncertain: each resample draws it, one for all bases, from its fiducial distribution (Tsui &
        Weerahandi 1989), so that without noise of rows a difference of two bases follows Student's t. The second result has
        the same draws at the estimated variance: their tails are normal, so means can be computed.
        """
        variances = np.maximum(0.0, self.squares / generator.chisquare(self.freedom, resamples) - self.noise)
        estimated = max(0.0, self.squares / self.freedom - self.noise)
        luck = generator.normal(size=(len(seeds), resamples)) / np.sqrt(seeds)[:, None]
        return luck * np.sqrt(variances), luck * np.sqrt(estimated)


def pooled(bases: Sequence[Sequence[Values]], tests: int) -> Luck | None:
    """The seed variance of one fine-tuning in a mean over tests; None if no base has two seeds.

    bases: for each base the values on each test after this fine-tuning, shape (seeds, rows); tests: number in the mean,
    including those after other fine-tunings.
    """
    squares = noise = 0.0
    freedom = 0
    for scores_of_base in bases:
        scores = np.sum([values.mean(axis=1) for values in scores_of_base], axis=0) / tests
        squares += float(((scores - scores.mean()) ** 2).sum())
        noise += sum(_interaction(values) for values in scores_of_base) / tests**2
        freedom += len(scores) - 1
    return Luck(squares, freedom, noise / freedom) if freedom else None


def _interaction(values: Values) -> float:
    """Sum over seeds of the squared deviations of their means that the rows cause. values: shape (seeds, rows)."""
    left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    rows = values.shape[1]
    return float((left**2).sum() / (rows * max(1, rows - 1)))
