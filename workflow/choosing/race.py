"""A study's selection as a race: scores of the tuned candidates, the noise of their rows and seeds, and the recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.choosing.candidates import Candidates
from workflow.choosing.decision import Decision, Goal, decide
from workflow.errors import StudyError
from workflow.evaluation import metric_names
from workflow.settings import Selection
from workflow.study.selection import CANDIDATE_KEYS, Candidate, pairs

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """The tuned candidates' scores. candidates; values: weighted means over tests, higher is better, shape (tuned,); noise:
    covariance over rows and seeds, shape (tuned, tuned); seeds: the fewest of a candidate; allowed: whether the floor holds."""

    candidates: list[Candidate]
    values: Values
    noise: Values
    seeds: int
    allowed: NDArray[np.bool_]


def measured(block: Selection, tuned: Sequence[Candidate], scores: pd.DataFrame, items: pd.DataFrame) -> Measured:
    """Return what is known of the tuned candidates. scores, items: of their parts, and of untouched bases where a floor is set.

    A score is the weighted mean over the goal's tests and the plain mean over seeds. A metric of which lower is better counts
    negatively. Rows are the same for all candidates, so their noise is the covariance of row means; the variance between seeds is
    pooled over candidates. Errors: StudyError for a score that is missing.
    """
    if not tuned:
        return Measured([], np.zeros(0), np.zeros((0, 0)), 0, np.zeros(0, dtype=bool))
    weights = [block.get("weights", {}).get(test, 1.0) for _, test in pairs(block)]
    total, count = sum(weights), len(tuned)
    values, noise, by_seed = np.zeros(count), np.zeros((count, count)), []
    for (train, test), weight in zip(pairs(block), weights, strict=True):
        selected, sign = _scores(block, scores, train, test)
        table = pd.DataFrame({one: selected.get(one) for one in tuned}, dtype=float)  # seeds by candidates
        values += sign * weight / total * table.mean().to_numpy()
        by_seed.append(sign * weight / total * table.to_numpy())
        noise += (weight / total) ** 2 * _over_rows(block, items, train, test, tuned)
    spread = np.sum(by_seed, axis=0)
    seeds = int(np.isfinite(spread).sum(axis=0).min())
    if seeds > 1:
        noise = noise + np.eye(count) * float(np.nanvar(spread, axis=0, ddof=1).mean()) / seeds
    return Measured(list(tuned), values, noise, seeds, _allowed(block, tuned, scores))


def _of_test(block: Selection, rows: pd.DataFrame, train: str, test: str) -> pd.DataFrame:
    """Return the rows of one test, evaluated as the selection says, of models that are fine-tuned on one task."""
    keys = {"train": train, "test": test, "test_format": block["format"]} | {
        key: block[key] for key in ("shots", "suite")
    }
    return rows[(rows[list(keys)] == pd.Series(keys)).all(axis=1)]


def _scores(
    block: Selection, scores: pd.DataFrame, train: str, test: str, untouched: bool = False
) -> tuple[dict[Any, pd.Series], int]:
    """Return the scores of one test, by candidate (by base where untouched), indexed by seed; and -1 where lower is better.

    Errors: StudyError where there is none.
    """
    selected = _of_test(block, scores, train, test)
    selected = selected[selected["metric"] == block["metric"]] if "metric" in block else metric_names.primary(selected)
    if selected.empty:
        raise StudyError(f"config.yaml: selection/tests: no score of {test!r} after fine-tuning on {train!r} was found")
    better = metric_names.better(selected["metric"].iloc[0])
    grouped = selected.set_index("seed").groupby(CANDIDATE_KEYS[:2] if untouched else CANDIDATE_KEYS)["value"]
    return {(key[0], int(key[1]), *key[2:]): rows for key, rows in grouped}, -1 if better == "lower" else 1


def _over_rows(block: Selection, items: pd.DataFrame, train: str, test: str, tuned: Sequence[Candidate]) -> Values:
    """Return the covariance of the candidates' means over the rows of a test, shape (tuned, tuned)."""
    selected = _of_test(block, items, train, test)
    metric = block.get("metric") or metric_names.preferred(test, selected["metric"].unique())
    selected = selected[selected["metric"] == metric]
    by_row = selected.groupby([*CANDIDATE_KEYS, "id"])["value"].mean().unstack(CANDIDATE_KEYS)
    rows = by_row[list(tuned)].to_numpy(dtype=float)
    return np.cov(rows, rowvar=False).reshape(len(tuned), len(tuned)) / len(rows)


def _allowed(block: Selection, tuned: Sequence[Candidate], scores: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether each candidate keeps what it must not forget: no test of the floor falls by more than its loss."""
    allowed = np.ones(len(tuned), dtype=bool)
    floor = block.get("floor")
    for train in dict.fromkeys(train for train, _ in pairs(block)) if floor else ():
        for test in floor["tests"]:  # type: ignore[index]  # there is one
            after, sign = _scores(block, scores, train, test)
            before = _scores(block, scores.assign(test_format=block["format"]), "none", test, untouched=True)[0]
            falls = [sign * (before[one[:2]].mean() - after[one].mean()) for one in tuned]
            allowed &= np.array(falls) <= floor["loss"]  # type: ignore[index]
    return allowed


@dataclass(frozen=True)
class Budget:
    """What a selection may spend, and has spent. tunings, hours: limits, infinite for none; spent: GPU-hours so far, indicators
    counted; all_hours: GPU-hours of tuning all candidates; measured: whether hours are known."""

    tunings: float
    hours: float
    spent: float
    all_hours: float
    measured: bool

    def affordable(self, decision: Decision, tuned: int, expected: Sequence[float]) -> list[int]:
        """Return the places in the batch that can be paid, in its order, up to the first that cannot.

        expected: GPU-hours of each candidate, as those measured so far let expect: what was spent is measured too.
        """
        kept: list[int] = []
        hours = self.spent
        for index, one in enumerate(decision.batch):
            hours += expected[one.candidate] if self.measured else 0.0
            if tuned + len(kept) + 1 > self.tunings or hours > self.hours:
                break
            kept.append(index)
        return kept


def judged(known: Candidates, facts: Measured, names: Sequence[Candidate], goal: Goal, size: int) -> Decision:
    """Return the state of the race; a candidate below the floor counts as the worst one and is never the pick."""
    values = np.where(facts.allowed, facts.values, facts.values.min(initial=np.inf))
    places = [list(names).index(one) for one in facts.candidates]
    eligible = [index for index, allowed in zip(places, facts.allowed, strict=True) if allowed]
    return decide(known, places, values, facts.noise, goal, size, eligible=eligible)


def sentence(
    decision: Decision, names: Sequence[Candidate], facts: Measured, goal: Goal, budget: Budget, ended: str | None
) -> str:
    """Return the recommendation with its error and its cost."""
    tuned, count = len(facts.candidates), len(names)
    cost = f"{tuned} of {count} tuned"
    cost += f", {budget.spent:.3g} of {budget.all_hours:.3g} GPU-hours" if budget.measured else ""
    if decision.pick is None:
        return f"No candidate is tuned yet; {cost}."
    if not facts.allowed.any():
        return f"No tuned candidate keeps the floor; {cost}."
    family, step, recipe = names[decision.pick]
    index = facts.candidates.index(names[decision.pick])
    score = f"{abs(facts.values[index]):.3f} ± {1.96 * float(facts.noise[index, index]) ** 0.5:.3f}"
    end = {"settled": " The answer is settled.", "budget": " The budget is spent.", None: ""}[ended]
    end += "" if facts.seeds > 1 else " One seed each: this is about these tuned models."
    name = f"{family} at step {step} with {recipe}"
    if np.isnan(decision.mean).all():
        best = f"The best of {tuned} tuned candidate{'s' if tuned > 1 else ''} is {name}, {score}"
        return f"{best}; too few to say anything of the others; {cost}.{end}"
    return (
        f"Tune {name}: {score}; the probability that another of the {count} candidates is better by more than "
        f"{goal.epsilon:g} is {decision.losing:.2f}; {cost}; tuning all would change the pick with probability "
        f"{decision.changing:.2f}.{end}"
    )


def rows(
    decision: Decision,
    names: Sequence[Candidate],
    facts: Measured,
    batch: Sequence[int],
    prices: Mapping[Candidate, float],
) -> list[dict[str, Any]]:
    """Return rows of `tables.SELECTION`, one for each candidate; batch: candidates that come next."""
    values = dict(zip(facts.candidates, facts.values, strict=True))
    improvement = {one.candidate: one.value for one in decision.batch}
    table = []
    for index, name in enumerate(names):
        state = "tuned" if name in values else "next" if index in batch else "out" if index in decision.out else "left"
        known = bool(np.isfinite(decision.mean[index]))
        table.append(
            dict(zip(CANDIDATE_KEYS, name, strict=True))
            | {
                "state": "pick" if index == decision.pick else state,
                "value": values.get(name),
                "expected": float(decision.mean[index]) if known else None,
                "deviation": float(decision.deviation[index]) if known else None,
                "improvement": _number(improvement.get(index)),
                "hours": prices.get(name),
                "reason": _reason(state, index, decision, improvement),
            }
        )
    return table


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _reason(state: str, index: int, decision: Decision, improvement: Mapping[int, float]) -> str:
    """Return why a candidate is in its state."""
    if state == "next" and np.isnan(improvement.get(index, np.nan)):
        return "to begin with: expected to be good by indicators and step, and unlike the others of this batch"
    if state == "next":
        return f"highest expected improvement for its price: {improvement[index]:.4f}"
    if state == "out":
        return "hardly any chance to be better than the pick"
    return "fine-tuned" if state == "tuned" else "less expected improvement for its price"
