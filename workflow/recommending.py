"""Which base to tune for a task: its expected score and chance to be the best, what an indicator would have picked instead.

A score is uncertain by the rows that it was tested on and the seeds that it was tuned with. Both are resampled, for all bases
alike, so that two bases are compared row by row. What would come of tuning on other data is not in it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import task
from workflow.comparison import Level, Sample
from workflow.indicators import SCORED
from workflow.metrics import PRIMARY
from workflow.prompts import FORMATS
from workflow.statistics import Resampling
from workflow.summaries import markdown

Values = NDArray[np.float64]
Base = tuple[str, int]

WAY = ["recipe", "suite", "test_format", "shots"]
CHANCE, LAST = "chance", "last_step"  # what needs no measuring: any base, or the last of its run


@dataclass(frozen=True)
class Question:
    """What a base is wanted for, with the scores of all bases that can be asked about.

    name: task, or target of a cohort; title: what sentences call it, with recipe and suite where the name has several;
    tests: task tuned on and test of each score in the mean; way: keys WAY; bases; values: shape (bases,); resampled: shape
    (bases, resamples), all bases alike; n: scored rows; single: whether some base is known by one seed alone, so that the
    luck of tuning is not in the resamples.
    """

    name: str
    title: str
    tests: Sequence[tuple[str, str]]
    way: Mapping[str, Any]
    bases: Sequence[Base]
    values: Values
    resampled: Values
    n: int | None
    single: bool

    @property
    def probability(self) -> Values:
        """Share of the resamples in which each base is the best; several that are equal share it. Shape (bases,)."""
        best = self.resampled == self.resampled.max(axis=0)
        return (best / best.sum(axis=0)).mean(axis=1)

    @property
    def top(self) -> int:
        """Place of the base with the highest score."""
        return int(self.values.argmax())

    @property
    def where(self) -> dict[str, Any]:
        """Conditions on the table of scores that hold for the rows behind it; of several tests, for those of the first."""
        train, test = self.tests[0]
        known = {"train": train, "test": test, "format": self.way["test_format"], **self.way}
        return known | {"metric": PRIMARY[task.KINDS[task.load(test).kind].method]}


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
    found = [question for question in found if len(question.bases)]
    several = Counter(question.name for question in found)
    return [replace(question, title=_title(question)) if several[question.name] > 1 else question for question in found]


def _title(question: Question) -> str:
    """A question told apart from those of the same task."""
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
) -> Question:
    """The question of a plain mean over tests."""
    parts, places = [], list(dict.fromkeys(test for _, test in tests))
    for pair in tests:
        own = [level for level in levels if (level.keys["train"], level.keys["test"]) == pair and _way(level) == way]
        # Tests have rows of their own, so each is resampled by a seed of its own, whatever was tuned on.
        by_test = replace(how, seed=how.seed + 2 + places.index(pair[1]))
        parts.append({_base(level): (level, by_test) for level in own})
    bases = sorted(set.intersection(*(set(part) for part in parts)))
    values = [np.mean([part[base][0].value for part in parts]) for base in bases]
    resampled = [np.mean([level.resampled(own) for level, own in (p[base] for p in parts)], axis=0) for base in bases]
    sizes = [part[base][0].n for part in parts for base in bases[:1]]
    n = None if None in sizes else sum(sizes)
    levels_of = [part[base][0] for part in parts for base in bases]
    single = any(isinstance(level, Sample) and len(level.values) == 1 for level in levels_of)
    return Question(name, name, tests, way, bases, np.array(values), np.array(resampled), n, single)


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
    for question in asked:
        keys = {"task": question.name, "recipe": question.way["recipe"], "suite": question.way["suite"]}
        rows = [*_answer(question, how), *_bases(question, how)]
        if len(question.bases) > 1:
            regrets = [*_regrets(question, picks, seconds, how)]
            rows += [*regrets, *_cheapest(question, regrets, list(picks), limit, how.level)]
        rows += _pretraining(question, analysis, how)
        yield from ({**keys, **row} for row in rows)


def _answer(question: Question, how: Resampling) -> Iterator[dict[str, Any]]:
    """The base to tune, or those among which it is too close to call."""
    top, chance = question.top, question.probability
    score = f"it scores {_figure(question, top, how)}"
    if len(question.bases) == 1:
        text = f"only {_named(question.bases[top])} was tuned; {score}"
    elif chance[top] >= how.level:
        text = (
            f"tune {_named(question.bases[top])}, the best of {len(question.bases)} bases with probability "
            f"{chance[top]:.2f}; {score}"
        )
    else:
        rivals = [_named(question.bases[place]) for place in _rivals(question, how)]
        text = (
            f"too close to call: {_named(question.bases[top])} has the highest score, but is the best with probability "
            f"{chance[top]:.2f} only; {score}; not to be told from it: {', '.join(rivals) or 'none alone'}"
        )
    luck = "; of a single seed, so the luck of tuning is not in this" if question.single else ""
    yield _row(question, "answer", text + luck, question.where, top, how)


def _rivals(question: Question, how: Resampling) -> list[int]:
    """Places of the bases whose paired difference to the one with the highest score has an interval that holds 0."""
    lead = question.resampled[question.top] - question.resampled
    return [place for place in range(len(lead)) if place != question.top and how.bounds(lead[place])[0] <= 0]


def _bases(question: Question, how: Resampling) -> Iterator[dict[str, Any]]:
    """Each base with its expected score and its chance to be the best, the highest score first."""
    for place in np.argsort(-question.values, kind="stable"):
        family, step = question.bases[place]
        text = (
            f"{_named(question.bases[place])} scores {_figure(question, place, how)} after tuning and is the best of "
            f"{len(question.bases)} with probability {question.probability[place]:.2f}"
        )
        yield _row(question, "base", text, question.where | {"family": family, "step": step}, int(place), how)


def _regrets(
    question: Question, picks: Mapping[str, Mapping[Base, float]], seconds: Mapping[str, float], how: Resampling
) -> Iterator[dict[str, Any]]:
    """What picking a base by each indicator alone, by the last step, or by chance is expected to lose against the best.

    The regret is that of the measured scores, which flatters none: the best of several noisy scores is a little too high.
    """
    ends = {family: max(step for own, step in question.bases if own == family) for family, _ in question.bases}
    last = {base: float(base[1] == ends[base[0]]) for base in question.bases}
    for name, values in {**picks, LAST: last, CHANCE: dict.fromkeys(question.bases, 0.0)}.items():
        there = [base for base in question.bases if base in values and math.isfinite(values[base])]
        if len(there) < len(question.bases):
            continue
        highest = max(values[base] for base in there)
        picked = [place for place, base in enumerate(question.bases) if values[base] == highest]
        value = float(question.values.max() - question.values[picked].mean())
        low, high = how.bounds(question.resampled.max(axis=0) - question.resampled[picked].mean(axis=0))
        whom = _named(question.bases[picked[0]]) if len(picked) == 1 else f"any of {len(picked)} bases"
        means = {CHANCE: "picking by chance", LAST: "picking the last step"}.get(name, f"picking by {name}")
        text = (
            f"{means} ({whom}) loses {value:.3f} ({how.level:.0%} {low:.3f} to {high:.3f}) against the best of "
            f"{len(question.bases)} bases"
        )
        family, step = question.bases[picked[0]]
        place = {"family": family, "step": step} if len(picked) == 1 else {}
        figures = {"value": value, "low": low, "high": high, "n": question.n, "seconds": seconds.get(name)}
        figures |= {"probability": float(question.probability[picked].mean())}
        yield {
            "topic": "regret",
            "indicator": name,
            **place,
            **_said(question, text, question.where | place),
            **figures,
        }


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
            f"loses {best['value']:.3f} ({level:.0%} {best['low']:.3f} to {best['high']:.3f})"
        )
    lacking = [name for name in indicators if name not in {row["indicator"] for row in measured}]
    text += f"; not judged, since not measured on all bases: {', '.join(lacking)}" if lacking else ""
    kept = ("indicator", "family", "step", "value", "low", "high", "n", "seconds", "probability", "table", "filter")
    yield {**{key: best.get(key) for key in kept}, "topic": "cheapest", "statement": f"{question.title}: {text}."}


def _pretraining(question: Question, analysis: pd.DataFrame, how: Resampling) -> Iterator[dict[str, Any]]:
    """Whether more pre-training still pays, from the slope beyond the turning point of each family's scores after tuning."""
    if len(question.tests) > 1:
        return
    train, test = question.tests[0]
    keys = {"analysis": "turning_point", "group": "level", "train": train, "test": test, **question.way}
    keys |= {"format": question.way["test_format"]}
    rows = analysis[(analysis[list(keys)] == pd.Series(keys)).all(axis=1)]
    for family in dict.fromkeys(family for family, _ in question.bases):
        own = rows[rows["family"] == family].set_index("estimator")
        if not {"turning_step", "slope_after"} <= set(own.index):
            steps = sum(name == family for name, _ in question.bases)
            text = f"no curve over the {steps} steps of {family} says whether more pre-training pays (it takes five)"
            figures: dict[str, Any] = {"n": steps}
            link = _said(question, text, question.where | {"family": family})
        else:
            slope, turn = own.loc["slope_after"], own.loc["turning_step"]
            told = pd.notna(slope["p_value"]) and slope["p_value"] < 1 - how.level
            verdict = (
                ("still pays" if slope["value"] > 0 else "costs") if told else "makes no difference that can be told"
            )
            text = (
                f"beyond step {turn['value']:.0f} of {family} ({how.level:.0%} {turn['low']:.0f} to {turn['high']:.0f}) more "
                f"pre-training {verdict}: {slope['value']:+.3f} ({slope['low']:+.3f} to {slope['high']:+.3f}) for 100,000 steps"
            )
            figures = {name: slope[name] for name in ("value", "low", "high", "n")}
            link = _said(question, text, keys | {"family": family, "estimator": "slope_after"}, "analysis")
        yield {"topic": "pretraining", "family": family, **link, **_plain(figures)}


def _row(
    question: Question, topic: str, text: str, where: Mapping[str, Any], place: int, how: Resampling
) -> dict[str, Any]:
    """A row about one base."""
    family, step = question.bases[place]
    low, high = how.bounds(question.resampled[place])
    figures = {"value": float(question.values[place]), "low": low, "high": high, "n": question.n}
    chance = float(question.probability[place])
    keys = {"topic": topic, "family": family, "step": step, "probability": chance}
    return {**keys, **_said(question, text, where), **figures}


def _said(question: Question, text: str, where: Mapping[str, Any], table: str = "scores") -> dict[str, Any]:
    """A sentence with the table and the conditions that its rows are found by."""
    return {"statement": f"{question.title}: {text}.", "table": table, "filter": json.dumps(dict(where))}


def _figure(question: Question, place: int, how: Resampling) -> str:
    """A score with its interval."""
    low, high = how.bounds(question.resampled[place])
    return f"{question.values[place]:.3f} ({how.level:.0%} {low:.3f} to {high:.3f})"


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
        lines.append(f"## {name}\n\nTuned by {recipe}, tested in {suite}.")
        told = own[own["topic"].isin(["answer", "cheapest", "pretraining", "regret"])]
        lines.append("\n".join(f"- {row.statement} (`{row.table}`: `{row.filter}`)" for row in told.itertuples()))
        columns = ["family", "step", "value", "low", "high", "probability", "n"]
        lines.append(markdown(own.loc[own["topic"] == "base", columns]))
    return "\n\n".join(lines)
