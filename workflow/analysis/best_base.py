"""Scores of all bases that a question is about, and the chance of each to be the best.

A score is uncertain by the rows that it was tested on and the seeds that it was tuned with. Rows are resampled for all bases
alike, so that two bases are compared row by row; the luck of seeds is drawn for each base by itself (see `seed_variance`). What
would come of tuning on other data is not in it, nor the luck of tuning where no base was tuned with two seeds: what is said
is then about these tuned models, and no base is recommended.

The highest of several noisy scores owes its place partly to luck. The chance that a base is the best is therefore that of its
true score given all scores, which are drawn towards their mean the more, the less they differ beyond their noise (`chances`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.analysis.evidence import Level, Sample, common_limits
from workflow.analysis.seed_variance import pooled
from workflow.data.prompts import FORMATS
from workflow.errors import StudyError
from workflow.statistics import UNLIMITED, Limits, Resampling, informative

Values = NDArray[np.float64]
Base = tuple[str, int]
WAY = ["recipe", "suite", "test_format", "shots"]
SPREADS = 50  # values that the spread of true scores is drawn from


@dataclass(frozen=True)
class Question:
    """What a base is wanted for, with the scores of all bases that can be asked about.

    name: task, or target of a cohort; title: what sentences call it, with recipe and suite where the name has several;
    tests: task tuned on and test of each score in the mean; way: keys WAY; bases; values: shape (bases,); resampled: shape
    (bases, resamples), of rows alike for all bases and of luck; noise: the same less its mean, luck at its estimated size;
    n: scored rows; lucky: whether the luck of tuning is in the resamples, which takes a base with two seeds; metric: of the first
    test; better: which way of it is, `higher` or `lower`; margins: how far each score's interval goes below and above it, shape
    (2, bases); limits: of possible scores.
    """

    name: str
    title: str
    tests: Sequence[tuple[str, str]]
    way: Mapping[str, Any]
    bases: Sequence[Base]
    values: Values
    resampled: Values
    noise: Values
    n: int | None
    lucky: bool
    metric: str = ""
    better: str = "higher"
    margins: Values = field(default_factory=lambda: np.zeros((2, 1)))
    limits: Limits = UNLIMITED

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return -1 if self.better == "lower" else 1

    @property
    def tuned(self) -> bool:
        """Whether bases are wanted for tuning, not as they are."""
        return self.way["recipe"] != "none"

    @cached_property
    def probability(self) -> Values:
        """Probability that each base is the best (`chances`); several that are equal share it. Shape (bases,)."""
        own = (self.values, self.resampled - self.values[:, None], self.noise)
        return chances(*(self.sign * values for values in own))

    @property
    def top(self) -> int:
        """Place of the base with the best score, the first of several."""
        return int((self.sign * self.values).argmax())

    @property
    def tied(self) -> list[int]:
        """Places of all bases with the best score."""
        return [int(place) for place in np.flatnonzero(self.values == self.values[self.top])]

    def lead_margins(self, picked: Sequence[int]) -> Values:
        """How far the lead of each base over the mean of the picked ones may be off, below and above, shape (2, bases).

        From the margins of the scores and the correlations of their noise (Zou & Donner 2008), so that scores that are right on
        nearly all rows, of which resamples hardly differ, do not seem to be certain. The lead of a picked base over itself is 0.
        """
        bases = len(self.bases)
        below, above = np.broadcast_to(self.margins[:: self.sign], (2, bases))
        shared = self._correlations
        weights = np.isin(np.arange(bases), picked) / len(picked)
        off = []
        for own, others in ((below, above), (above, below)):
            mean = weights * others
            squares = own**2 + mean @ shared @ mean - 2 * own * (shared @ mean)
            off.append(np.sqrt(np.maximum(0.0, squares)))
        return np.where(weights == 1, 0.0, np.array(off))

    @cached_property
    def _correlations(self) -> Values:
        """Correlations of the noise of all bases' scores, shape (bases, bases). As in `statistics.correlation` two rows are added
        on which the bases differ."""
        covariance = np.atleast_2d(np.cov(self.noise))
        errors = np.sqrt(np.diag(covariance))
        products = np.outer(errors, errors)
        found = np.divide(covariance, products, out=np.zeros_like(covariance), where=products > 0)
        shrunk = found if self.n is None else (self.n * found - 2) / (self.n + 2)
        return np.where(products > 0, shrunk, 0.0) * (1 - np.eye(len(errors))) + np.eye(len(errors))

    @property
    def where(self) -> dict[str, Any]:
        """Conditions on the table of scores that hold for the rows behind it; of several tests, for those of the first."""
        train, test = self.tests[0]
        known = {"train": train, "test": test, "format": self.way["test_format"], **self.way}
        return known | {"metric": self.metric}


def chances(values: Values, errors: Values, noise: Values) -> Values:
    """Probability that each base has the highest true score, shape (bases,): a share of draws of all true scores.

    values: shape (bases,); errors: what may be off in them, drawn, shape (bases, draws); noise: the same with normal tails, for
    their covariance. True scores are taken to be normal around an unknown mean with an unknown spread; the spread is drawn from
    its posterior under a half-Cauchy prior (Gelman 2006, section 2.2) whose scale is that of the scores and their noise, and
    each draw is of true scores given scores and spread (empirical Bayes: Efron & Morris 1975; drawn by perturbing the scores,
    Papandreou & Yuille 2010).
    """
    bases, draws = errors.shape
    if bases == 1:
        return np.ones(1)
    covariance = np.atleast_2d(np.cov(noise))
    apart = float(np.trace(covariance) - covariance.mean() * bases) / (bases - 1)  # variance of noise around its mean
    scale = max(float(values.std(ddof=1)), max(apart, 0.0) ** 0.5)
    if scale == 0:
        return np.full(bases, 1 / bases)
    spreads = scale * np.tan(np.linspace(0.01, 0.99, SPREADS) * np.pi / 2)  # of equal prior probability
    roots = np.linalg.eigh(covariance)
    likelihoods = np.array([_likelihood(values, roots, spread) for spread in spreads])
    weights = np.exp(likelihoods - likelihoods.max())
    generator = np.random.default_rng([bases, draws])
    chosen = generator.choice(SPREADS, size=draws, p=weights / weights.sum())
    best = np.zeros(bases)
    for place in np.unique(chosen):
        true = _true_scores(values[:, None] + errors[:, chosen == place], roots, spreads[place], generator)
        best += np.bincount(true.argmax(axis=0), minlength=bases)
    return best / draws


def _likelihood(values: Values, roots: tuple[Values, Values], spread: float) -> float:
    """Logarithm of the likelihood of scores whose truths spread so, whatever their mean. roots: eigenvalues and eigenvectors of
    the noise's covariance."""
    variances = np.maximum(roots[0], 0) + spread**2
    inverse = (roots[1] / variances) @ roots[1].T
    away = values - inverse.sum(axis=0) @ values / inverse.sum()
    return float(-np.log(variances).sum() - np.log(inverse.sum()) - away @ inverse @ away) / 2


def _true_scores(
    perturbed: Values, roots: tuple[Values, Values], spread: float, generator: np.random.Generator
) -> Values:
    """A draw of all true scores for each column of scores perturbed by their noise, shape (bases, draws)."""
    prior = spread * generator.standard_normal(perturbed.shape)
    inverse = (roots[1] / (np.maximum(roots[0], 0) + spread**2)) @ roots[1].T
    away = perturbed - prior
    away = away - inverse.sum(axis=0) @ away / inverse.sum()
    return prior + spread**2 * (inverse @ away)


def questions(levels: Sequence[Level], targets: Mapping[str, Mapping[str, Any]], how: Resampling) -> list[Question]:
    """A question for each task that bases were tuned on and tested with, by recipe and suite, and for each target.

    targets: name -> tests, pairs of task tuned on and test, and `way`. Of several formats and numbers of demonstrations
    those are taken that most bases were tested with, of equals the first and the fewest. A base that lacks one of the tests
    is not among the bases.
    """
    own = [level for level in levels if level.keys["train"] != "none" and _alike(level)]
    home = [level for level in own if level.keys["train"] == level.keys["test"]]
    order = {name: place for place, name in enumerate(FORMATS)}
    counts = Counter((_place(level), tuple(_way(level).values())) for level in home)
    home.sort(key=lambda level: (order[level.keys["test_format"]], level.keys["shots"]))
    home.sort(key=lambda level: -counts[_place(level), tuple(_way(level).values())])
    asked: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in home:
        asked.setdefault(_place(level), _way(level))
    found = [_question(train, [(train, train)], way, own, how) for (train, *_), way in sorted(asked.items(), key=str)]
    found += [_question(name, target["tests"], target["way"], own, how) for name, target in targets.items()]
    found += _untouched(levels, how)
    there = [question for question in found if question is not None]
    several = Counter(question.title for question in there)
    return [
        replace(question, title=_title(question)) if several[question.title] > 1 else question for question in there
    ]


def _untouched(levels: Sequence[Level], how: Resampling) -> Iterator[Question | None]:
    """A question for each test, suite and number of demonstrations that untouched bases of families were put to of which the
    study has no tuned model: which of them is the best as it is. A test of which no way is better is no question."""
    tuned = {level.keys["family"] for level in levels if level.keys["train"] != "none"}
    asked: dict[tuple[Any, ...], list[Level]] = {}
    for level in levels:
        if level.keys["family"] not in tuned and level.better is not None:
            asked.setdefault((level.keys["test"], *_way(level).values()), []).append(level)
    for (test, *_), own in sorted(asked.items(), key=lambda entry: str(entry[0])):
        way = _way(own[0])
        question = _question(test, [("none", test)], way, own, how)
        yield question and replace(question, way=way | {"format": "none"}, title=f"{test}, {way['shots']}-shot")


def _title(question: Question) -> str:
    """A question told apart from those of the same task."""
    if not question.tuned:
        return f"{question.title} ({question.way['suite']})"
    return f"{question.name} ({question.way['recipe']}, {question.way['suite']})"


def _alike(level: Level) -> bool:
    """Whether a model is tested in the format that it was tuned in."""
    return level.keys["format"] == level.keys["test_format"]


def _place(level: Level) -> tuple[Any, ...]:
    """What a question is about besides the way of testing."""
    return tuple(level.keys[key] for key in ("train", "recipe", "suite"))


def _way(level: Level) -> dict[str, Any]:
    return {key: level.keys[key] for key in WAY}


def _question(
    name: str, tests: Sequence[tuple[str, str]], way: Mapping[str, Any], levels: Sequence[Level], how: Resampling
) -> Question | None:
    """The question of a plain mean over tests; None where no base has all of them.

    Errors: StudyError where bases were scored on different rows.
    """
    here = [level for level in levels if _way(level) == way]
    parts = [{_base(level): level for level in here if _pair(level) == pair} for pair in tests]
    bases = sorted(set.intersection(*(set(part) for part in parts)))
    if not bases:
        return None
    table = [[part[base] for base in bases] for part in parts]
    places = list(dict.fromkeys(test for _, test in tests))
    # Tests have rows of their own, so each is resampled by a seed of its own, whatever was tuned on.
    seeds = [how.seed + 2 + places.index(test) for _, test in tests]
    rows = [_over_rows(own, replace(how, seed=seed)) for own, seed in zip(table, seeds, strict=True)]
    lucks: list[Any] = [
        np.zeros((2, len(bases), how.resamples))
        if train == "none"
        else _luck(
            [own for (tuned, _), own in zip(tests, table, strict=True) if tuned == train], len(tests), number, how
        )
        for number, train in enumerate(dict.fromkeys(train for train, _ in tests))
    ]
    lucky = all(luck is not None for luck in lucks)
    luck: Any = sum(lucks) if lucky else np.zeros((2, 1, 1))  # of tuning, by tasks tuned on
    values = np.mean([[level.value for level in own] for own in table], axis=0)
    sizes = [own[0].n for own in table]
    known = [size for size in sizes if size is not None]
    n = sum(known) if len(known) == len(sizes) else None
    resampled, noise = np.mean(rows, axis=0) + luck
    noise = noise - noise.mean(axis=1, keepdims=True)
    first = table[0][0]
    facts: dict[str, Any] = {"metric": first.metric, "better": first.better or "higher"}
    facts["limits"] = common_limits([level for own in table for level in own])
    halves = np.array([(high - low) / 2 for low, high in (how.bounds(own) for own in luck[0])]) if lucky else 0.0
    facts["margins"] = (_margins(table, [test for _, test in tests], how.level) ** 2 + halves**2) ** 0.5
    return Question(name, name, tests, way, bases, values, resampled, noise, n, lucky, **facts)


def _margins(table: Sequence[Sequence[Level]], tests: Sequence[str], level: float) -> Values:
    """How far the mean over tests of each base may be off by its rows, below and above, shape (2, bases).

    Tests that occur twice, after different tunings, share their rows: their margins add up, those of different tests in
    quadrature. table: levels of all bases, a row for each of the tests.
    """
    own = np.array([[one.over_rows(level) for one in levels] for levels in table]).transpose(0, 2, 1) / len(tests)
    summed = [own[[test == name for test in tests]].sum(axis=0) for name in dict.fromkeys(tests)]
    return np.sqrt(np.sum(np.square(summed), axis=0))


def _over_rows(levels: Sequence[Level], how: Resampling) -> Values:
    """The levels of all bases on one test over resampled rows, seeds as they are, shape (bases, resamples).

    Errors: StudyError unless all were scored on the same rows, as far as rows are known.
    """
    samples = [level for level in levels if isinstance(level, Sample)]
    for other in samples:
        if other.ids != samples[0].ids:
            pair = " and ".join(named(_base(level)) for level in (samples[0], other))
            raise StudyError(
                f"suite {other.keys['suite']}, test {other.keys['test']}: {pair} were scored on different rows; expected the "
                "same rows for all bases that are compared"
            )
    means = how.means(np.array([sample.values.mean(axis=0) for sample in samples]).T).T if samples else ()
    drawn = iter(means)
    return np.array([next(drawn) if isinstance(level, Sample) else level.resampled(how) for level in levels])


def _luck(parts: Sequence[Sequence[Level]], tests: int, number: int, how: Resampling) -> Values | None:
    """What the luck of one tuning may have added to a mean over tests (`Luck.draws`), shape (2, bases, resamples).

    None where it is unknown. parts: the levels of all bases on each test after this tuning; number: of the tuning, for a seed
    of its own. The error of a reported score of several seeds holds its luck.
    """
    bases = list(zip(*parts, strict=True))
    luck = pooled([[level.values for level in own] for own in bases if isinstance(own[0], Sample)], tests)
    seeds = np.array([own[0].seeds if isinstance(own[0], Sample) or own[0].seeds == 1 else np.inf for own in bases])
    if luck is None:
        return None if np.isfinite(seeds).any() else np.zeros((2, len(bases), how.resamples))
    return np.array(luck.draws(seeds, how.resamples, np.random.default_rng([how.seed, number])))


def _pair(level: Level) -> tuple[str, str]:
    """Task tuned on and test."""
    return level.keys["train"], level.keys["test"]


def _base(level: Level) -> Base:
    return level.keys["family"], int(level.keys["step"])


def uncertain(levels: Sequence[Level]) -> list[Level]:
    """The levels whose uncertainty is known: a score without one would win or lose every comparison for certain.

    Rows of a loss that are all alike, or a single row, say nothing of it either.
    """
    return [level for level in levels if level.uncertain and informative(level.over_rows)]


def named(base: Base) -> str:
    """What sentences call a base."""
    return f"{base[0]} at step {base[1]}"
