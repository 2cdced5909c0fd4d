"""Which base to tune for a task: its expected score and chance to be the best, what an indicator would have picked instead.

A score is uncertain by the rows that it was tested on and the seeds that it was tuned with. Rows are resampled for all bases
alike, so that two bases are compared row by row; the luck of seeds is drawn for each base by itself (see `seed_variance`). What would
come of tuning on other data is not in it, nor the luck of tuning where no base was tuned with two seeds: what is said is then
about these tuned models, and no base is recommended.

The highest of several noisy scores owes its place partly to luck. The chance that a base is the best is therefore that of its
true score given all scores, which are drawn towards their mean the more, the less they differ beyond their noise (`chances`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.analysis.analyses.extrapolation import COVERAGE
from workflow.analysis.evidence import Level, Sample
from workflow.analysis.seed_variance import pooled
from workflow.data.prompts import FORMATS
from workflow.errors import StudyError
from workflow.report.summaries import markdown
from workflow.statistics import Resampling, holm
from workflow.study.indicators import SCORED

Values = NDArray[np.float64]
Base = tuple[str, int]

WAY = ["recipe", "suite", "test_format", "shots"]
LOSS = ("value", "low", "high", "measured")
SPREADS = 50  # values that the spread of true scores is drawn from
FEW = 6  # bases that a sentence names
WORTH = 0.01  # chance to be the best from which on an untouched base is listed beside the last of its run
CHANCE, LAST = "chance", "last_step"  # what needs no measuring: any base, or the last of its run


@dataclass(frozen=True)
class Question:
    """What a base is wanted for, with the scores of all bases that can be asked about.

    name: task, or target of a cohort; title: what sentences call it, with recipe and suite where the name has several;
    tests: task tuned on and test of each score in the mean; way: keys WAY; bases; values: shape (bases,); resampled: shape
    (bases, resamples), of rows alike for all bases and of luck; noise: the same less its mean, luck at its estimated size;
    n: scored rows; lucky: whether the luck of tuning is in the resamples, which takes a base with two seeds; metric: of the first
    test; better: which way of it is, `higher` or `lower`; margins: how far each score's interval goes below and above it, shape
    (2, bases).
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
    lucks = [
        np.zeros((2, len(bases), how.resamples))
        if train == "none"
        else _luck(
            [own for (tuned, _), own in zip(tests, table, strict=True) if tuned == train], len(tests), number, how
        )
        for number, train in enumerate(dict.fromkeys(train for train, _ in tests))
    ]
    lucky = all(luck is not None for luck in lucks)
    values = np.mean([[level.value for level in own] for own in table], axis=0)
    sizes = [own[0].n for own in table]
    n = None if None in sizes else sum(sizes)
    resampled, noise = np.mean(rows, axis=0) + (sum(lucks) if lucky else np.zeros((2, 1, 1)))
    noise = noise - noise.mean(axis=1, keepdims=True)
    first = table[0][0]
    facts = {"metric": first.metric, "better": first.better or "higher"}
    halves = np.array([(high - low) / 2 for low, high in (how.bounds(own) for own in sum(lucks)[0])]) if lucky else 0.0
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
            pair = " and ".join(_named(_base(level)) for level in (samples[0], other))
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


def recommend(
    asked: Sequence[Question],
    picks: Mapping[str, Mapping[Base, float]],
    seconds: Mapping[str, float],
    analysis: pd.DataFrame,
    limit: float,
    how: Resampling,
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.RECOMMENDATIONS`.

    picks: indicator -> base -> value, higher is better; seconds: wall time of measuring an indicator on a base; analysis:
    the gathered table; limit: the regret that is small enough.
    """
    analysis = analysis[analysis["analysis"] == "extrapolation"]  # it is looked through for each question
    significant = _significant(asked, analysis, how.level)
    for question in asked:
        keys = {"task": question.name, "recipe": question.way["recipe"], "suite": question.way["suite"]}
        rows = [*_answer(question, how), *_bases(question, how)]
        if len(question.bases) > 1 and question.tuned:
            regrets = [*_regrets(question, picks, seconds, how)]
            rows += [*regrets, *_cheapest(question, regrets, list(picks), limit, how.level)]
        rows += _pretraining(question, analysis, significant)
        yield from ({**keys, **row} for row in rows)


def _answer(question: Question, how: Resampling) -> Iterator[dict[str, Any]]:
    """The base to tune, or those among which it is too close to call; of single seeds, what their rows say."""
    top, tied = question.top, question.tied
    name, chance = _named(question.bases[top]), question.probability[top]
    score = f"it scores {_figure(question, top, how)}"
    highest = f"{name} has the highest score" if len(tied) == 1 else f"{_tie(question)} tie for the highest score"
    rivals = ", ".join(_named(question.bases[place]) for place in _rivals(question, how)) or "none alone"
    if not question.tuned:
        text = _as_it_is(question, score, rivals, how)
    elif len(question.bases) == 1:
        luck = "" if question.lucky else "; one seed, so this is about this tuned model: another seed may differ"
        text = f"only {name} was tuned; {score}{luck}"
    elif not question.lucky:
        text = (
            f"no base is recommended, since {len(question.bases)} bases were tuned with one seed each and what another seed "
            f"would change is unknown; of these tuned models {highest}; {score}; on other rows of the test it is the best of "
            f"them with probability {chance:.2f}; not significantly worse on these rows: {rivals}"
        )
    elif chance >= how.level and len(tied) == 1:
        text = f"tune {name}, the best of {len(question.bases)} bases with probability {chance:.2f}; {score}"
    else:
        text = (
            f"too close to call: {highest}, but {'is' if len(tied) == 1 else 'each is'} the best with probability {chance:.2f} "
            f"only; {score}; not significantly worse: {rivals}"
        )
    yield _row(question, "answer", text, question.where, top, how)


def _tie(question: Question) -> str:
    """The bases that share the highest score."""
    *first, last = [_named(question.bases[place]) for place in question.tied]
    return f"{', '.join(first)} and {last}"


def _as_it_is(question: Question, score: str, rivals: str, how: Resampling) -> str:
    """Which untouched base is the best on a test."""
    name, chance, count = _named(question.bases[question.top]), question.probability[question.top], len(question.bases)
    if count == 1:
        return f"only {name} was tested; {score}"
    best = f"the {'lowest' if question.sign < 0 else 'highest'} {question.metric}"
    leads = f"{name} has {best}" if len(question.tied) == 1 else f"{_tie(question)} tie for {best}"
    text = f"of {count} untouched bases {leads}; {score}"
    if chance >= how.level and len(question.tied) == 1:
        return f"{text}; it is the best with probability {chance:.2f} over resampled rows"
    few = rivals if rivals.count(", ") < FEW else f"{rivals.count(', ') + 1} bases"
    return f"{text}; not significantly better than {few} (probability {chance:.2f} to be the best, over resampled rows)"


def _rivals(question: Question, how: Resampling) -> list[int]:
    """Places of the bases whose paired difference to the best one has an interval that holds 0."""
    lead = question.sign * (question.resampled[question.top] - question.resampled)
    lower = how.columns(lead.T)[0]
    return [place for place in range(len(lead)) if place != question.top and lower[place] <= 0]


def _bases(question: Question, how: Resampling) -> Iterator[dict[str, Any]]:
    """Each base with its expected score and its chance to be the best, the highest score first."""
    probability = question.probability
    for place in np.argsort(-question.sign * question.values, kind="stable"):
        family, step = question.bases[place]
        if (
            not question.tuned
            and probability[place] < WORTH
            and step != max(s for f, s in question.bases if f == family)
        ):
            continue  # hundreds of bases that are not the best; the table of scores has them
        text = (
            f"{_named(question.bases[place])} scores {_figure(question, place, how)} "
            f"{'after tuning' if question.tuned else 'as it is'} and is the best of "
            f"{len(question.bases)} with probability {probability[place]:.2f}"
            f"{'' if question.lucky else ', as far as these tuned models go (one seed each)'}"
        )
        yield _row(question, "base", text, question.where | {"family": family, "step": step}, int(place), how)


def _regrets(
    question: Question, picks: Mapping[str, Mapping[Base, float]], seconds: Mapping[str, float], how: Resampling
) -> Iterator[dict[str, Any]]:
    """What picking a base by each indicator alone, by the last step, or by chance is expected to lose against the best."""
    ends = {family: max(step for own, step in question.bases if own == family) for family, _ in question.bases}
    last = {base: float(base[1] == ends[base[0]]) for base in question.bases}
    for name, values in {**picks, LAST: last, CHANCE: dict.fromkeys(question.bases, 0.0)}.items():
        there = [base for base in question.bases if base in values and math.isfinite(values[base])]
        if len(there) < len(question.bases):
            continue
        highest = max(values[base] for base in there)
        picked = [place for place, base in enumerate(question.bases) if values[base] == highest]
        loss = _loss(question, picked, how)
        whom = _named(question.bases[picked[0]]) if len(picked) == 1 else f"any of {len(picked)} bases"
        means = {CHANCE: "picking by chance", LAST: "picking the last step"}.get(name, f"picking by {name}")
        text = f"{means} ({whom}) loses {_lost(loss, how.level)} against the best of {len(question.bases)} bases"
        text += "" if question.lucky else "; one seed each, so part of this may be the difference between seeds"
        family, step = question.bases[picked[0]]
        place = {"family": family, "step": step} if len(picked) == 1 else {}
        figures = {"n": question.n, "seconds": seconds.get(name)}
        figures |= {"probability": float(question.probability[picked].mean())}
        yield {
            "topic": "regret",
            "indicator": name,
            **place,
            **_said(question, text, question.where | place),
            **loss,
            **figures,
        }


def _loss(question: Question, picked: Sequence[int], how: Resampling) -> dict[str, float]:
    """What a pick loses against the best base: measured, an estimate that the best of noisy scores does not raise, an interval.

    The estimate judges the best base by other noise than it is chosen by, as two halves of the data would: noise is added
    to the scores to choose by and taken from those to judge by, which makes both independent where it is normal, and that is
    averaged over resamples (Leiner et al. 2023, "Data fission"). No loss is below 0. Of the interval the lower end takes the
    noise of the largest lead, whichever base has it, and the upper end that of each base by itself, since one is the best: it
    holds the loss at least as often as it says (Hsu 1984, comparisons with the best).
    """
    lead = question.values - question.values[picked].mean()
    noise = question.noise - question.noise[picked].mean(axis=0)
    chosen = (lead[:, None] + noise).argmax(axis=0)
    judged = np.take_along_axis(lead[:, None] - noise, chosen[None], axis=0)
    leads = question.resampled - question.resampled[picked].mean(axis=0)
    off = (leads - lead[:, None]).max(axis=0)
    return {
        "value": max(0.0, float(judged.mean())),
        "low": max(0.0, float(lead.max()) - how.bounds(off)[1]),
        "high": min(1.0, float(how.columns(leads.T)[1].max())),
        "measured": float(lead.max()),
    }


def _lost(loss: Mapping[str, float], level: float) -> str:
    """A loss with its interval."""
    return f"{loss['value']:.3f} ({100 * level:g} % CI {loss['low']:.3f} to {loss['high']:.3f})"


def _cheapest(
    question: Question, regrets: Sequence[Mapping[str, Any]], indicators: Sequence[str], limit: float, level: float
) -> Iterator[dict[str, Any]]:
    """The cheapest indicator whose pick loses little; of equal costs the one that loses least; which could not be judged."""
    measured = [row for row in regrets if row["indicator"] not in (CHANCE, LAST)]
    if not measured:
        return
    good = [row for row in measured if row["value"] <= limit]
    if not good:
        best = min(measured, key=lambda row: row["value"])
        text = f"no indicator picks a base within {limit:g} of the best; {best['indicator']} comes nearest"
    else:
        best = min(good, key=lambda row: (row["seconds"] if row["seconds"] is not None else math.inf, row["value"]))
        cost = (
            "at a cost that was not measured"
            if best["seconds"] is None
            else f"{best['seconds']:.0f} s a base with all that its job measures"
        )
        text = (
            f"the cheapest of {len(measured)} indicators whose pick loses at most {limit:g} is {best['indicator']}, {cost}; it "
            f"loses {_lost(best, level)}"
        )
    lacking = [name for name in indicators if name not in {row["indicator"] for row in measured}]
    text += f"; not judged, since not measured on all bases: {', '.join(lacking)}" if lacking else ""
    text += "" if question.lucky else "; one seed each, so the difference between seeds is not in this"
    kept = ("indicator", "family", "step", *LOSS, "n", "seconds", "probability", "table", "filter")
    yield {**{key: best.get(key) for key in kept}, "topic": "cheapest", "statement": f"{question.title}: {text}."}


def _forecast_keys(question: Question) -> dict[str, Any]:
    """Conditions on the analysis that hold for the forecast changes of a question's scores."""
    train, test = question.tests[0]
    keys = {"analysis": "extrapolation", "estimator": "later_change", "train": train, "test": test}
    return keys | {"format": question.way["test_format"], **question.way}


def _later(question: Question, analysis: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each family with the forecast changes of its scores after tuning, the latest step last."""
    keys = _forecast_keys(question)
    rows = analysis[(analysis[list(keys)] == pd.Series(keys)).all(axis=1)].sort_values("step")
    for family in dict.fromkeys(family for family, _ in question.bases):
        yield family, rows[rows["family"] == family]


def _significant(asked: Sequence[Question], analysis: pd.DataFrame, level: float) -> set[Any]:
    """Places in the analysis of the latest forecast changes that are significant among those of all questions (Holm)."""
    single = [question for question in asked if len(question.tests) == 1]
    known = [rows[rows["value"].notna()] for question in single for _, rows in _later(question, analysis)]
    latest = {rows.index[-1]: float(rows["p_value"].iloc[-1]) for rows in known if len(rows)}
    adjusted = holm(np.array(list(latest.values())))
    return {place for place, p_value in zip(latest, adjusted, strict=True) if p_value < 1 - level}


def _pretraining(question: Question, analysis: pd.DataFrame, significant: Collection[Any]) -> Iterator[dict[str, Any]]:
    """What more pre-training of each family is forecast to change of its score after tuning, at the latest step that can be."""
    if len(question.tests) > 1:
        return
    for family, own in _later(question, analysis):
        known = own[own["value"].notna()]
        steps = sum(name == family for name, _ in question.bases)
        figures: dict[str, Any] = {"n": steps}
        if own.empty:
            text = f"from {steps} step{'s' if steps > 1 else ''} of {family} nothing can be forecast"
            link = _said(question, text, question.where | {"family": family})
        else:
            row = (own if known.empty else known).iloc[-1]
            said = _change(question, row, row.name in significant)
            text = f"it cannot be told what more pre-training of {family} would change" if known.empty else said
            figures = {name: row[name] for name in ("value", "low", "high", "n")}
            where = _forecast_keys(question) | {"family": family, "step": int(row["step"])}
            link = _said(question, text, where, "analysis")
        yield {"topic": "pretraining", "family": family, **link, **_plain(figures)}


def _change(question: Question, row: Mapping[str, Any], significant: bool) -> str:
    """A forecast change with its interval."""
    verdict = "may or may not pay" if not significant else "pays" if question.sign * row["value"] > 0 else "costs"
    score = "score after tuning" if question.tuned else "score"
    tested = "" if significant else "not "
    return (
        f"more pre-training of {row['family']} {verdict}: by step {int(row['step'])} the {score} is forecast to "
        f"change by {row['value']:+.3f} ({100 * COVERAGE:g} % interval {row['low']:+.3f} to {row['high']:+.3f}; {tested}"
        "significant, Holm)"
    )


def _row(
    question: Question, topic: str, text: str, where: Mapping[str, Any], place: int, how: Resampling
) -> dict[str, Any]:
    """A row about one base."""
    family, step = question.bases[place]
    low, high = _ends(question, place, how)
    figures = {"value": float(question.values[place]), "low": low, "high": high, "n": question.n}
    chance = float(question.probability[place])
    keys = {"topic": topic, "family": family, "step": step, "probability": chance}
    return {**keys, **_said(question, text, where), **figures}


def _said(question: Question, text: str, where: Mapping[str, Any], table: str = "scores") -> dict[str, Any]:
    """A sentence with the table and the conditions that its rows are found by."""
    return {"statement": f"{question.title}: {text}.", "table": table, "filter": json.dumps(dict(where))}


def _ends(question: Question, place: int, how: Resampling) -> tuple[float, float]:
    """The interval of a base's score, cut to 0 to 1 where scores lie there, which luck may leave and no score can."""
    below, above = question.margins[:, place]
    low, high = question.values[place] - below, question.values[place] + above
    return max(0.0, float(low)), float(high) if question.sign < 0 else min(1.0, float(high))


def _figure(question: Question, place: int, how: Resampling) -> str:
    """A score with its interval."""
    low, high = _ends(question, place, how)
    return f"{question.values[place]:.3f} ({100 * how.level:g} % CI {low:.3f} to {high:.3f})"


def _named(base: Base) -> str:
    return f"{base[0]} at step {base[1]}"


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as Python's own, missing ones as None."""
    plain = {name: None if pd.isna(value) else float(value) for name, value in figures.items()}
    return plain | {"n": None if plain["n"] is None else int(plain["n"])}


def costs(settings: Mapping[str, Any], seconds: Mapping[str, Sequence[float]], bases: int) -> dict[str, float]:
    """Wall time of measuring each indicator on a base, where it was measured: of the jobs that it is measured in.

    settings: the study's `indicators`; seconds: of the jobs `measure`, and of the untouched bases' predictions by suite,
    all bases together.
    """
    jobs = {name: block["suite"] if block["measure"] == SCORED else "measure" for name, block in settings.items()}
    return {name: float(np.sum(seconds[job])) / bases for name, job in jobs.items() if len(seconds.get(job, ()))}


def uncertain(levels: Sequence[Level]) -> list[Level]:
    """The levels whose uncertainty is known: a score without one would win or lose every comparison for certain."""
    return [level for level in levels if isinstance(level, Sample) or level.uncertain]


def page(rows: pd.DataFrame) -> str:
    """The recommendations in Markdown: each task with its sentences, each with the rows behind it."""
    lines = ["# Which base to tune"]
    for (name, recipe, suite), own in rows.groupby(["task", "recipe", "suite"], sort=False):
        how = "Untouched bases" if recipe == "none" else f"Tuned by {recipe}"
        lines.append(f"## {name}\n\n{how}, tested in {suite}.")
        told = own[own["topic"].isin(["answer", "cheapest", "pretraining", "regret"])]
        lines.append("\n".join(f"- {row.statement} (`{row.table}`: `{row.filter}`)" for row in told.itertuples()))
        columns = ["family", "step", "value", "low", "high", "probability", "n"]
        lines.append(markdown(own.loc[own["topic"] == "base", columns]))
    return "\n\n".join(lines)
