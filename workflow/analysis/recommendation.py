"""Sentences on which base to tune for a task: its score, its probability to be the best, and the picks of indicators.

The statistics are in `best_base`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workflow.analysis.analyses.extrapolation import ASSUMED, COVERAGE
from workflow.analysis.best_base import Base, Question, named
from workflow.statistics import Resampling, holm
from workflow.storage.markdown import markdown
from workflow.study.indicators import SCORED

LOSS = ("value", "low", "high", "measured")
FEW = 6  # bases that a sentence names
WORTH = 0.01  # an untouched base below this probability to be the best is not listed, except the last of its run
CHANCE, LAST = "chance", "last_step"  # picks without a measurement: any base, the last base of a run


def recommend(
    questions: Sequence[Question],
    picks: Mapping[str, Mapping[Base, float]],
    seconds: Mapping[str, float],
    analysis: pd.DataFrame,
    limit: float,
    resampling: Resampling,
    not_chosen: Mapping[str, int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.RECOMMENDATIONS`.

    picks: indicator -> base -> value, higher is better; seconds: wall time of an indicator per base; analysis: the gathered
    table; limit: the largest regret that is small enough; not_chosen: `task/recipe` -> bases that a selection left out.
    """
    analysis = analysis[analysis["analysis"] == "extrapolation"]  # filtered once for all questions
    significant = _significant(questions, analysis, resampling.level)
    for question in questions:
        keys = {"task": question.name, "recipe": question.way["recipe"], "suite": question.way["suite"]}
        left = (not_chosen or {}).get(f"{question.tests[0][0]}/{question.way['recipe']}", 0)
        rows = [*_answer(question, resampling, left), *_bases(question, resampling)]
        if len(question.bases) > 1 and question.tuned:
            regrets = [*_regrets(question, picks, seconds, resampling)]
            rows += [*regrets, *_cheapest(question, regrets, list(picks), limit, resampling.level)]
        rows += _pretraining(question, analysis, significant)
        yield from ({**keys, **row} for row in rows)


def _answer(question: Question, resampling: Resampling, left: int = 0) -> Iterator[dict[str, Any]]:
    """The base to tune, or the bases among which it is too close to call; with single seeds, no recommendation.

    left: bases that a selection has not chosen, of which nothing is said here.
    """
    top, tied = question.top, question.tied
    name, chance = named(question.bases[top]), float(question.probability[tied].mean())
    score = _figure(question, top, resampling)
    best = f"{name}, {score}" if len(tied) == 1 else f"{_tie(question)}, {score} each"
    rivals = ", ".join(named(question.bases[index]) for index in _rivals(question, resampling)) or "none"
    if not question.tuned:
        text = _untuned(question, score, rivals, resampling)
    elif len(question.bases) == 1:
        note = "" if question.lucky else "; one seed: another seed may give another value"
        text = f"only {name} was tuned; it scores {score}{note}"
    elif not question.lucky:
        text = (
            f"only one seed for each of {len(question.bases)} bases, so the variance between seeds is unknown and no base is "
            f"recommended. Highest score: {best}; probability to be the best on other test rows {chance:.2f}"
            f"{'' if len(tied) == 1 else ' each'}. Not significantly worse on these test rows: {rivals}"
        )
    elif chance >= resampling.level and len(tied) == 1:
        text = f"tune {name}, the best of {len(question.bases)} bases with probability {chance:.2f}; it scores {score}"
    else:
        text = (
            f"too close to call. Highest score: {best}; probability to be the best {chance:.2f}"
            f"{'' if len(tied) == 1 else ' each'}. Not significantly worse: {rivals}"
        )
    text += (
        f"; {left} other base{'s' if left > 1 else ''} not fine-tuned, since the selection did not choose them"
        if left
        else ""
    )
    yield _row(question, "answer", text, question.where, top, resampling)


def _tie(question: Question) -> str:
    """The bases that share the highest score."""
    *first, last = [named(question.bases[index]) for index in question.tied]
    return f"{', '.join(first)} and {last}"


def _untuned(question: Question, score: str, rivals: str, resampling: Resampling) -> str:
    """The sentence on the best untouched base for a test."""
    name, count = named(question.bases[question.top]), len(question.bases)
    chance = float(question.probability[question.tied].mean())
    if count == 1:
        return f"only {name} was tested; it scores {score}"
    best = f"the {'lowest' if question.sign < 0 else 'highest'} {question.metric}"
    leads = f"{name} has {best}, {score}" if len(question.tied) == 1 else f"{_tie(question)} have {best}, {score} each"
    text = f"of {count} untouched bases {leads}; probability to be the best on other test rows {chance:.2f}"
    text += "" if len(question.tied) == 1 else " each"
    if chance >= resampling.level and len(question.tied) == 1:
        return text
    few = rivals if rivals.count(", ") < FEW else f"{rivals.count(', ') + 1} bases"
    return f"{text}. Not significantly worse: {few}"


def _rivals(question: Question, resampling: Resampling) -> list[int]:
    """Indices of the bases that are not the best and whose paired difference to the best one has an interval that includes 0."""
    lead = question.sign * (question.resampled[question.top] - question.resampled)
    lower = resampling.columns(lead.T)[0]
    return [index for index in range(len(lead)) if index not in question.tied and lower[index] <= 0]


def _bases(question: Question, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Each base with its score and its probability to be the best, the highest score first."""
    probability = question.probability
    for index in np.argsort(-question.sign * question.values, kind="stable"):
        family, step = question.bases[index]
        if (
            not question.tuned
            and probability[index] < WORTH
            and step != max(s for f, s in question.bases if f == family)
        ):
            continue  # there may be hundreds; the table of scores has them
        text = (
            f"{named(question.bases[index])} scores {_figure(question, index, resampling)} "
            f"{'after tuning' if question.tuned else 'without tuning'} and is the best of "
            f"{len(question.bases)} with probability {probability[index]:.2f}"
            f"{'' if question.lucky else ' (one seed each: of these tuned models, on other test rows)'}"
        )
        yield _row(question, "base", text, question.where | {"family": family, "step": step}, int(index), resampling)


def _regrets(
    question: Question, picks: Mapping[str, Mapping[Base, float]], seconds: Mapping[str, float], resampling: Resampling
) -> Iterator[dict[str, Any]]:
    """The expected loss against the best base of a pick by each indicator alone, by the last step, or by chance."""
    ends = {
        family: max(step for family_of_base, step in question.bases if family_of_base == family)
        for family, _ in question.bases
    }
    last = {base: float(base[1] == ends[base[0]]) for base in question.bases}
    for name, values in {**picks, LAST: last, CHANCE: dict.fromkeys(question.bases, 0.0)}.items():
        if not all(math.isfinite(values.get(base, math.nan)) for base in question.bases):
            continue
        highest = max(values[base] for base in question.bases)
        picked = [index for index, base in enumerate(question.bases) if values[base] == highest]
        loss = _loss(question, picked, resampling)
        pick = named(question.bases[picked[0]]) if len(picked) == 1 else f"any of {len(picked)} bases"
        method = {CHANCE: "picking by chance", LAST: "picking the last step"}.get(name, f"picking by {name}")
        text = (
            f"{method} ({pick}) loses {_lost(loss, resampling.level)} against the best of {len(question.bases)} bases"
        )
        text += "" if question.lucky else "; one seed each: part of this may be variance between seeds"
        family, step = question.bases[picked[0]]
        base_keys = {"family": family, "step": step} if len(picked) == 1 else {}
        figures = {"n": question.n, "seconds": seconds.get(name)}
        figures |= {"probability": float(question.probability[picked].mean())}
        yield {
            "topic": "regret",
            "indicator": name,
            **base_keys,
            **_statement(question, text, question.where | base_keys),
            **loss,
            **figures,
        }


def _loss(question: Question, picked: Sequence[int], resampling: Resampling) -> dict[str, float]:
    """The loss of a pick against the best base: as measured, an estimate without the bias of the maximum, and an interval.

    The estimate chooses the best base and scores it with independent noise, as two halves of the data would: noise is added
    to the scores for the choice and subtracted for the scoring, which makes the two independent where the noise is normal, and
    the result is averaged over resamples (Leiner et al. 2023, "Data fission"). No loss is below 0. The lower end of the interval
    uses the noise of the largest lead, whichever base has it, and is no higher than the margins of the leads allow. The upper end
    uses the margin of each base's lead separately, since one of them is the best. The coverage is at least nominal (Hsu 1984,
    comparisons with the best).
    """
    sign = question.sign
    lead = sign * (question.values - question.values[picked].mean())
    noise = sign * (question.noise - question.noise[picked].mean(axis=0))
    chosen = (lead[:, None] + noise).argmax(axis=0)
    judged = np.take_along_axis(lead[:, None] - noise, chosen[None], axis=0)
    leads = sign * (question.resampled - question.resampled[picked].mean(axis=0))
    error = resampling.bounds((leads - lead[:, None]).max(axis=0))[1]
    below, above = question.lead_margins(picked)
    high = float((lead + above).max())
    return {
        "value": max(0.0, float(judged.mean())),
        "low": max(0.0, min(float(lead.max()) - error, float((lead - below).max()))),
        "high": min(high, question.limits[1] - question.limits[0]),
        "measured": float(lead.max()),
    }


def _lost(loss: Mapping[str, float], level: float) -> str:
    """A loss with its interval. Its width is 0 if the pick is the best and the margins of all other leads are below 0."""
    if loss["high"] == 0:
        return "0.000 (all other bases are significantly worse on the test rows)"
    on_rows = (
        "" if f"{loss['measured']:.3f}" == f"{loss['value']:.3f}" else f"; on these test rows {loss['measured']:.3f}"
    )
    return f"{loss['value']:.3f} ({100 * level:g} % CI {loss['low']:.3f} to {loss['high']:.3f}{on_rows})"


def _cheapest(
    question: Question, regrets: Sequence[Mapping[str, Any]], indicators: Sequence[str], limit: float, level: float
) -> Iterator[dict[str, Any]]:
    """The cheapest indicator with a small loss, at equal cost the one with the smallest; and the indicators that lack bases."""
    measured = [row for row in regrets if row["indicator"] not in (CHANCE, LAST)]
    if not measured:
        return
    good = [row for row in measured if row["value"] <= limit]
    if not good:
        best = min(measured, key=lambda row: row["value"])
        text = f"no indicator loses at most {limit:g}; {best['indicator']} loses least, {_lost(best, level)}"
    else:
        best = min(good, key=lambda row: (row["seconds"] if row["seconds"] is not None else math.inf, row["value"]))
        cost = (
            "cost not measured"
            if best["seconds"] is None
            else f"{best['seconds']:.0f} s per base for all that its job measures"
        )
        text = (
            f"of {len(measured)} indicators, {best['indicator']} is the cheapest whose pick loses at most {limit:g} ({cost}); "
            f"its pick loses {_lost(best, level)}"
        )
    text += "".join(
        f"; picking the last step costs nothing and loses {_lost(row, level)}"
        for row in regrets
        if row["indicator"] == LAST
    )
    lacking = [name for name in indicators if name not in {row["indicator"] for row in measured}]
    text += f"; left out, since not measured on all bases: {', '.join(lacking)}" if lacking else ""
    text += "" if question.lucky else "; one seed each: variance between seeds is not included"
    columns = ("indicator", "family", "step", *LOSS, "n", "seconds", "probability", "table", "filter")
    yield {**{key: best.get(key) for key in columns}, "topic": "cheapest", "statement": f"{question.title}: {text}."}


def _forecast_keys(question: Question) -> dict[str, Any]:
    """The conditions that select the forecast changes of a question's scores in the analysis."""
    train, test = question.tests[0]
    keys = {"analysis": "extrapolation", "estimator": "later_change", "train": train, "test": test}
    return keys | {"format": question.way["test_format"], **question.way}


def _later(question: Question, analysis: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each family with the forecast changes of its scores after fine-tuning, in the order of steps."""
    keys = _forecast_keys(question)
    rows = analysis[(analysis[list(keys)] == pd.Series(keys)).all(axis=1)].sort_values("step")
    for family in dict.fromkeys(family for family, _ in question.bases):
        yield family, rows[rows["family"] == family]


def _significant(questions: Sequence[Question], analysis: pd.DataFrame, level: float) -> set[Any]:
    """Index labels of the latest forecast changes that are significant (Holm over all questions)."""
    single = [question for question in questions if len(question.tests) == 1]
    known = [rows[rows["value"].notna()] for question in single for _, rows in _later(question, analysis)]
    latest = {rows.index[-1]: float(rows["p_value"].iloc[-1]) for rows in known if len(rows)}
    adjusted = holm(np.array(list(latest.values())))
    return {label for label, p_value in zip(latest, adjusted, strict=True) if p_value < 1 - level}


def _pretraining(question: Question, analysis: pd.DataFrame, significant: Collection[Any]) -> Iterator[dict[str, Any]]:
    """The forecast change of each family's score after fine-tuning with more pre-training, at the latest step with a
    forecast.
    """
    if len(question.tests) > 1:
        return
    for family, forecasts in _later(question, analysis):
        known = forecasts[forecasts["value"].notna()]
        steps = sum(name == family for name, _ in question.bases)
        figures: dict[str, Any] = {"n": steps}
        if forecasts.empty:
            text = f"{steps} step{'s' if steps > 1 else ''} of {family} are too few for a forecast of more pre-training"
            link = _statement(question, text, question.where | {"family": family})
        else:
            row = (forecasts if known.empty else known).iloc[-1]
            text = (
                f"no forecast of more pre-training of {family}: scores of held-out steps cannot be forecast or are too few "
                "to try, or the last scores are lower than earlier steps forecast"
                if known.empty
                else _change(question, row, row.name in significant)
            )
            figures = {name: row[name] for name in ("value", "low", "high", "n")}
            where = _forecast_keys(question) | {"family": family, "step": int(row["step"])}
            link = _statement(question, text, where, "analysis")
        yield {"topic": "pretraining", "family": family, **link, **_plain(figures)}


def _change(question: Question, row: Mapping[str, Any], significant: bool) -> str:
    """The sentence on a forecast change, with its interval."""
    verdict = "may or may not pay" if not significant else "pays" if question.sign * row["value"] > 0 else "costs"
    score = "score after tuning" if question.tuned else "score"
    tested = "" if significant else "not "
    note = "" if question.lucky else "One seed each: part of this may be variance between seeds. "
    return (
        f"more pre-training of {row['family']} {verdict}: by step {int(row['step'])} the {score} is forecast to "
        f"change by {row['value']:+.3f} ({100 * COVERAGE:g} % interval {row['low']:+.3f} to {row['high']:+.3f}; {tested}"
        f"significant, Holm). {note}{ASSUMED}"
    )


def _row(
    question: Question, topic: str, text: str, where: Mapping[str, Any], index: int, resampling: Resampling
) -> dict[str, Any]:
    """A row about one base."""
    family, step = question.bases[index]
    low, high = _ends(question, index, resampling)
    figures = {"value": float(question.values[index]), "low": low, "high": high, "n": question.n}
    chance = float(question.probability[index])
    keys = {"topic": topic, "family": family, "step": step, "probability": chance}
    return {**keys, **_statement(question, text, where), **figures}


def _statement(question: Question, text: str, where: Mapping[str, Any], table: str = "scores") -> dict[str, Any]:
    """The statement, and the table and conditions that select its rows."""
    return {"statement": f"{question.title}: {text}.", "table": table, "filter": json.dumps(dict(where))}


def _ends(question: Question, index: int, resampling: Resampling) -> tuple[float, float]:
    """The interval of a base's score, cut to possible scores, which the variance between seeds could exceed."""
    below, above = question.margins[:, index]
    low, high = question.values[index] - below, question.values[index] + above
    return max(question.limits[0], float(low)), min(question.limits[1], float(high))


def _figure(question: Question, index: int, resampling: Resampling) -> str:
    """A score with its interval."""
    low, high = _ends(question, index, resampling)
    return f"{question.values[index]:.3f} ({100 * resampling.level:g} % CI {low:.3f} to {high:.3f})"


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as Python floats and int, missing ones as None."""
    plain = {name: None if pd.isna(value) else float(value) for name, value in figures.items()}
    return plain | {"n": None if plain["n"] is None else int(plain["n"])}


def costs(settings: Mapping[str, Any], seconds: Mapping[str, Sequence[float]], bases: int) -> dict[str, float]:
    """Wall time in seconds per base of the job that measures each indicator; indicators without a measured job are left out.

    settings: the study's `indicators`; seconds: of the jobs `measure`, and of the untouched bases' predictions by suite, for
    all bases together.
    """
    jobs = {name: block["suite"] if block["measure"] == SCORED else "measure" for name, block in settings.items()}
    return {name: float(np.sum(seconds[job])) / bases for name, job in jobs.items() if len(seconds.get(job, ()))}


def page(rows: pd.DataFrame) -> str:
    """The recommendations as Markdown: a part for each task, with its statements and the rows behind them."""
    lines = ["# Which base to tune"]
    for (name, recipe, suite), statements_of_question in rows.groupby(["task", "recipe", "suite"], sort=False):
        models = "Untouched bases" if recipe == "none" else f"Tuned by {recipe}"
        lines.append(f"## {name}\n\n{models}, evaluated in suite {suite}.")
        statements = statements_of_question[
            statements_of_question["topic"].isin(["answer", "cheapest", "pretraining", "regret"])
        ]
        lines.append("\n".join(f"- {row.statement} (`{row.table}`: `{row.filter}`)" for row in statements.itertuples()))
        columns = ["family", "step", "value", "low", "high", "probability", "n"]
        lines.append(markdown(statements_of_question.loc[statements_of_question["topic"] == "base", columns]))
    return "\n\n".join(lines)
