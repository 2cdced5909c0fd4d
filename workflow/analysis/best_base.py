"""Scores of all bases for a question, and the probability of each base to be the best.

A score is uncertain by its test rows and by the seeds of fine-tuning. Rows are resampled for all bases together, so that two
bases are compared row by row. Seeds vary for each base separately (see `seed_variance`). Not included: other fine-tuning
data, and the variance between seeds if no base has two. In that case statements are about these fine-tuned models only, and
no base is recommended.

The highest of several noisy scores is partly high by chance. The probability to be the best is therefore that of the true
score given all scores. Scores are shrunk towards their mean, the more the less they differ beyond their noise (`chances`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow import task
from workflow.analysis.evidence import Level, Sample, common_limits
from workflow.analysis.seed_variance import pooled
from workflow.data.prompts import FORMATS
from workflow.errors import StudyError
from workflow.statistics import UNLIMITED, Limits, Resampling, informative

Values = NDArray[np.float64]
Base = tuple[str, int]
WAY = ["recipe", "suite", "test_format", "shots"]
SPREADS = 50  # grid of values of the spread of true scores


@dataclass(frozen=True)
class Question:
    """A question for the best base, with the scores of all bases that are candidates.

    name: task, or target of a cohort; title: name in sentences, with recipe and suite if several questions have the name;
    tests: fine-tuning task and test of each score in the mean; way: keys WAY; bases; values: shape (bases,); resampled:
    shape (bases, resamples), with rows alike for all bases and with seed variance; noise: the same minus its mean, with seed
    variance at its estimate; n: scored rows; lucky: whether resamples include the variance between seeds, which requires a
    base with two seeds; metric: of the first test; better: `higher` or `lower` values of it are better; margins: of each
    score's interval, below and above, shape (2, bases); limits: of possible scores.
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
        """Whether the question is about fine-tuned bases, not untouched ones."""
        return self.way["recipe"] != "none"

    @cached_property
    def probability(self) -> Values:
        """Probability of each base to be the best (`chances`), shape (bases,). Equal bases share it."""
        inputs = (self.values, self.resampled - self.values[:, None], self.noise)
        values, errors, noise = (self.sign * array for array in inputs)
        first, same, counts = _alike_on_all_rows(values, noise)
        return (chances(values[first], errors[first], noise[first]) / counts)[same]

    @property
    def top(self) -> int:
        """Index of the base with the best score, the first of several."""
        return int((self.sign * self.values).argmax())

    @property
    def tied(self) -> list[int]:
        """Indices of all bases with the best score."""
        return [int(index) for index in np.flatnonzero(self.values == self.values[self.top])]

    def lead_margins(self, picked: Sequence[int]) -> Values:
        """Margins of the lead of each base over the mean of the picked ones, below and above, shape (2, bases).

        From the margins of the scores and the correlations of their noise (Zou & Donner 2008), so that scores that are
        correct on nearly all rows, whose resamples hardly differ, do not appear certain. The lead of a picked base over
        itself is 0.
        """
        bases = len(self.bases)
        below, above = np.broadcast_to(self.margins[:: self.sign], (2, bases))
        shared = self._correlations
        weights = np.isin(np.arange(bases), picked) / len(picked)
        off = []
        for margin, others in ((below, above), (above, below)):
            mean = weights * others
            squares = margin**2 + mean @ shared @ mean - 2 * margin * (shared @ mean)
            off.append(np.sqrt(np.maximum(0.0, squares)))
        return np.where(weights == 1, 0.0, np.array(off))

    @cached_property
    def _correlations(self) -> Values:
        """Correlations of the noise of all bases' scores, shape (bases, bases).

        As in `statistics.correlation`, two rows are added on which the bases differ.
        """
        covariance = np.atleast_2d(np.cov(self.noise))
        errors = np.sqrt(np.diag(covariance))
        products = np.outer(errors, errors)
        correlations = np.divide(covariance, products, out=np.zeros_like(covariance), where=products > 0)
        shrunk = correlations if self.n is None else (self.n * correlations - 2) / (self.n + 2)
        return np.where(products > 0, shrunk, 0.0) * (1 - np.eye(len(errors))) + np.eye(len(errors))

    @property
    def where(self) -> dict[str, Any]:
        """Conditions that select the rows of the question in the table of scores; for several tests, those of the first."""
        train, test = self.tests[0]
        known = {"train": train, "test": test, "format": self.way["test_format"], **self.way}
        return known | {"metric": self.metric}


def _alike_on_all_rows(values: Values, noise: Values) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Bases with the same result on all rows as one candidate each: index of its first base, candidate of each base, number
    of its bases.

    The noise of their difference is 0. As several candidates they would be evidence that true scores hardly differ at all,
    so that a base far below them could have the highest one.
    """
    table = np.column_stack([values, noise]).round(12)
    _, first, same, counts = np.unique(table, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return first, same.reshape(-1), counts


def chances(values: Values, errors: Values, noise: Values) -> Values:
    """Probability of each base to have the highest true score, shape (bases,): a share of draws of all true scores.

    values: shape (bases,); errors: draws of their errors, shape (bases, draws); noise: the same with normal tails, for their
    covariance. True scores are assumed normal around an unknown mean with an unknown spread. The spread is drawn from its
    posterior under a half-Cauchy prior (Gelman 2006, section 2.2) whose scale is that of the scores and their noise. Each
    draw is of true scores given scores and spread (empirical Bayes: Efron & Morris 1975; drawn by perturbing the scores,
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
    spreads = scale * np.tan(np.linspace(0.01, 0.99, SPREADS) * np.pi / 2)  # of equal prior probability each
    roots = np.linalg.eigh(covariance)
    likelihoods = np.array([_likelihood(values, roots, spread) for spread in spreads])
    weights = np.exp(likelihoods - likelihoods.max())
    generator = np.random.default_rng([bases, draws])
    chosen = generator.choice(SPREADS, size=draws, p=weights / weights.sum())
    best = np.zeros(bases)
    for index in np.unique(chosen):
        true = _true_scores(values[:, None] + errors[:, chosen == index], roots, spreads[index], generator)
        best += np.bincount(true.argmax(axis=0), minlength=bases)
    return best / draws


def _likelihood(values: Values, roots: tuple[Values, Values], spread: float) -> float:
    """Log-likelihood of scores whose true values have a given spread, whatever their mean.

    roots: eigenvalues and eigenvectors of the noise's covariance.
    """
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


def questions(
    levels: Sequence[Level], targets: Mapping[str, Mapping[str, Any]], resampling: Resampling
) -> list[Question]:
    """A question for each fine-tuning task with a test of the same name, by recipe and suite, and for each target; for a mix of
    tasks also one for each of them.

    targets: name -> tests, pairs of fine-tuning task and test, and `way`. Of several formats and numbers of demonstrations,
    those of most bases are used; if equal, the first format and the fewest demonstrations. A base that lacks one of the
    tests is not among the bases.
    """
    comparable = [level for level in levels if level.keys["train"] != "none" and _alike(level)]
    home = [level for level in comparable if task.at_home(*_pair(level))]
    order = {name: index for index, name in enumerate(FORMATS)}
    counts = Counter((_place(level), tuple(_way(level).values())) for level in home)
    home.sort(key=lambda level: (order[level.keys["test_format"]], level.keys["shots"]))
    home.sort(key=lambda level: -counts[_place(level), tuple(_way(level).values())])
    ways: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in home:
        ways.setdefault(_place(level), _way(level))
    result = [
        _question(name, tests, way, comparable, resampling)
        for (train, *_), way in sorted(ways.items(), key=str)
        for name, tests in _home(train, [level for level in home if _way(level) == way]).items()
    ]
    result += [
        _question(name, target["tests"], target["way"], comparable, resampling) for name, target in targets.items()
    ]
    result += _untouched(levels, resampling)
    questions_with_bases = [question for question in result if question is not None]
    several = Counter(question.title for question in questions_with_bases)
    return [
        replace(question, title=_title(question)) if several[question.title] > 1 else question
        for question in questions_with_bases
    ]


def _home(train: str, levels: Sequence[Level]) -> dict[str, list[tuple[str, str]]]:
    """The questions on the tasks of a fine-tuning: one on a single task; on a mix one on the mean of its tests, and one on each.

    levels: of fine-tuned models on their own tasks.
    """
    tested = {level.keys["test"] for level in levels if level.keys["train"] == train}
    pairs = [(train, test) for test in task.components(train) if test in tested]
    each = {f"{test} after {train}": [(train, test)] for _, test in pairs}
    return {train: pairs} | (each if len(pairs) > 1 else {})


def _untouched(levels: Sequence[Level], resampling: Resampling) -> Iterator[Question | None]:
    """A question for each test, suite and number of demonstrations of families without a fine-tuned model: which untouched
    base is the best.

    Metrics without a better direction have no question.
    """
    tuned = {level.keys["family"] for level in levels if level.keys["train"] != "none"}
    groups: dict[tuple[Any, ...], list[Level]] = {}
    for level in levels:
        if level.keys["family"] not in tuned and level.better is not None:
            groups.setdefault((level.keys["test"], *_way(level).values()), []).append(level)
    for (test, *_), members in sorted(groups.items(), key=lambda entry: str(entry[0])):
        way = _way(members[0])
        question = _question(test, [("none", test)], way, members, resampling)
        yield question and replace(question, way=way | {"format": "none"}, title=f"{test}, {way['shots']}-shot")


def _title(question: Question) -> str:
    """A title that distinguishes a question from others on the same task."""
    if not question.tuned:
        return f"{question.title} ({question.way['suite']})"
    return f"{question.name} ({question.way['recipe']}, {question.way['suite']})"


def _alike(level: Level) -> bool:
    """Whether a model is tested in the format of its fine-tuning."""
    return level.keys["format"] == level.keys["test_format"]


def _place(level: Level) -> tuple[Any, ...]:
    """The keys of a question except the way of testing."""
    return tuple(level.keys[key] for key in ("train", "recipe", "suite"))


def _way(level: Level) -> dict[str, Any]:
    return {key: level.keys[key] for key in WAY}


def _question(
    name: str, tests: Sequence[tuple[str, str]], way: Mapping[str, Any], levels: Sequence[Level], resampling: Resampling
) -> Question | None:
    """The question of a plain mean over tests; None if no base has all of them.

    Errors: StudyError if bases were scored on different rows.
    """
    here = [level for level in levels if _way(level) == way]
    parts = [{_base(level): level for level in here if _pair(level) == pair} for pair in tests]
    bases = sorted(set.intersection(*(set(part) for part in parts)))
    if not bases:
        return None
    table = [[part[base] for base in bases] for part in parts]
    places = list(dict.fromkeys(test for _, test in tests))
    # Tests have different rows, so each test has its own seed, whatever the fine-tuning task.
    seeds = [resampling.seed + 2 + places.index(test) for _, test in tests]
    rows = [
        _over_rows(levels_of_test, replace(resampling, seed=seed))
        for levels_of_test, seed in zip(table, seeds, strict=True)
    ]
    lucks: list[Any] = [
        np.zeros((2, len(bases), resampling.resamples))
        if train == "none"
        else _luck(
            [levels_of_test for (tuned, _), levels_of_test in zip(tests, table, strict=True) if tuned == train],
            len(tests),
            number,
            resampling,
        )
        for number, train in enumerate(dict.fromkeys(train for train, _ in tests))
    ]
    lucky = all(luck is not None for luck in lucks)
    luck: Any = sum(lucks) if lucky else np.zeros((2, 1, 1))  # of fine-tuning, by fine-tuning task
    values = np.mean([[level.value for level in levels_of_test] for levels_of_test in table], axis=0)
    sizes = [levels_of_test[0].n for levels_of_test in table]
    known = [size for size in sizes if size is not None]
    n = sum(known) if len(known) == len(sizes) else None
    resampled, noise = np.mean(rows, axis=0) + luck
    noise = noise - noise.mean(axis=1, keepdims=True)
    first = table[0][0]
    facts: dict[str, Any] = {"metric": first.metric, "better": first.better or "higher"}
    facts["limits"] = common_limits([level for levels_of_test in table for level in levels_of_test])
    halves = (
        np.array([(high - low) / 2 for low, high in (resampling.bounds(draws) for draws in luck[0])]) if lucky else 0.0
    )
    facts["margins"] = (_margins(table, [test for _, test in tests], resampling.level) ** 2 + halves**2) ** 0.5
    return Question(name, name, tests, way, bases, values, resampled, noise, n, lucky, **facts)


def _margins(table: Sequence[Sequence[Level]], tests: Sequence[str], level: float) -> Values:
    """Margins of the mean over tests of each base by its rows, below and above, shape (2, bases).

    Tests that occur twice, after different fine-tunings, share their rows: their margins add up, those of different tests
    add in quadrature. table: levels of all bases, one row for each test.
    """
    margins = np.array([[one.over_rows(level) for one in levels] for levels in table]).transpose(0, 2, 1) / len(tests)
    summed = [margins[[test == name for test in tests]].sum(axis=0) for name in dict.fromkeys(tests)]
    return np.sqrt(np.sum(np.square(summed), axis=0))


def _over_rows(levels: Sequence[Level], resampling: Resampling) -> Values:
    """The levels of all bases on one test over resampled rows, with seeds fixed, shape (bases, resamples).

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
    means = resampling.means(np.array([sample.values.mean(axis=0) for sample in samples]).T).T if samples else ()
    drawn = iter(means)
    return np.array([next(drawn) if isinstance(level, Sample) else level.resampled(resampling) for level in levels])


def _luck(parts: Sequence[Sequence[Level]], tests: int, number: int, resampling: Resampling) -> Values | None:
    """Draws of the variance between seeds of one fine-tuning in a mean over tests (`Luck.draws`), shape (2, bases,
    resamples).

    None if it is unknown. parts: the levels of all bases on each test after this fine-tuning; number: of the fine-tuning,
    for a seed of its own. The error of a reported score of several seeds includes this variance.
    """
    bases = list(zip(*parts, strict=True))
    luck = pooled(
        [
            [level.values for level in levels_of_base]
            for levels_of_base in bases
            if isinstance(levels_of_base[0], Sample)
        ],
        tests,
    )
    seeds = np.array(
        [
            levels_of_base[0].seeds if isinstance(levels_of_base[0], Sample) or levels_of_base[0].seeds == 1 else np.inf
            for levels_of_base in bases
        ]
    )
    if luck is None:
        return None if np.isfinite(seeds).any() else np.zeros((2, len(bases), resampling.resamples))
    return np.array(luck.draws(seeds, resampling.resamples, np.random.default_rng([resampling.seed, number])))


def _pair(level: Level) -> tuple[str, str]:
    """Fine-tuning task and test."""
    return level.keys["train"], level.keys["test"]


def _base(level: Level) -> Base:
    return level.keys["family"], int(level.keys["step"])


def uncertain(levels: Sequence[Level]) -> list[Level]:
    """The levels whose uncertainty is known.

    A score of unknown uncertainty would win or lose every comparison with certainty. Identical losses and single rows have
    unknown uncertainty as well.
    """
    return [level for level in levels if level.uncertain and informative(level.over_rows)]


def named(base: Base) -> str:
    """Name of a base in sentences."""
    return f"{base[0]} at step {base[1]}"
