"""The cards of the first screen: one for each task, with the checkpoint, its score, and everything that qualifies the answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workflow.evaluation import metric_names
from workflow.report.findings import ci, signed
from workflow.report.page.answers import Answer, answers
from workflow.report.page.forgetting import forgetting
from workflow.report.page.inputs import PageInputs
from workflow.report.page.settling import settling

NAMED = 5  # checkpoints that a line names
LIKELY = 0.05  # checkpoints below this probability to be the best are not named
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "untouched": "untouched"}


@dataclass(frozen=True)
class Card:
    """What a card shows. key: its anchor; tone: style of the badge; facts: label and text; marks: of the audit, each a kind with
    its number and one piece of evidence; tops: names of the checkpoints with the highest score; is_mean: whether the answer is
    about a mean of tests."""

    key: str
    title: str
    tone: str
    badge: str
    headline: str
    score: str
    facts: Sequence[tuple[str, str]]
    marks: Sequence[tuple[str, int, str]]
    statements: Sequence[str]
    tops: Sequence[str]
    is_mean: bool


def cards(inputs: PageInputs) -> list[Card]:
    """The cards of a study, in the order of the table of recommendations; targets that are means come last."""
    found = sorted(answers(inputs), key=lambda own: own[0].is_mean)
    return [_card(own, number) for number, own in enumerate(found, 1)]


def _card(recipes: Sequence[Answer], number: int) -> Card:
    """The card of a task. recipes: its answers, the recipe with the best score first."""
    answer = recipes[0]
    tone, badge = answer.verdict
    title = answer.task + ("" if _one_suite(answer) else f" ({answer.suite})") + (" (mean)" if answer.is_mean else "")
    marks = _marks(answer)
    return Card(
        f"card-{number}",
        title,
        tone,
        badge,
        headline(answer),
        score_line(answer),
        [(label, text) for label, text in _facts(recipes) if text],
        marks,
        _statements(recipes),
        [checkpoints(answer, [row]) for row in answer.tied],
        answer.is_mean,
    )


def _one_suite(answer: Answer) -> bool:
    """Whether the study has one suite, so that a title need not name it."""
    return answer.inputs.table("recommendations")["suite"].nunique() == 1


def headline(answer: Answer) -> str:
    """Which checkpoint, and how it is tuned."""
    tail = f", {METHODS.get(answer.method, answer.method)}"
    tie = " tie" if len(answer.tied) > 1 else ""
    about = f" (numbers of step {int(answer.top['step'])})" if tie else ""
    return f"{checkpoints(answer, answer.tied)}{tie}{tail}{about}"


def checkpoints(answer: Answer, rows: Sequence[dict[str, Any]]) -> str:
    """Names of some checkpoints: steps by family."""
    families: dict[str, list[int]] = {}
    for row in rows[:NAMED]:
        families.setdefault(row["family"], []).append(int(row["step"]))
    names = []
    for family, steps in families.items():
        step = answer.inputs.step_name(family, steps[0]) if len(rows) == 1 else _listed(sorted(steps))
        names.append(f"{family} {step}" if answer.inputs.several_families else step[0].upper() + step[1:])
    more = len(rows) - NAMED
    return "; ".join(names) + (f" and {more} more" if more > 0 else "")


def _listed(steps: Sequence[int]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"


def score_line(answer: Answer) -> str:
    """The expected score with its interval, the number of rows, and the metric."""
    top, metric = answer.top, metric_names.label(answer.where["metric"])
    n = "" if pd.isna(top["n"]) else f", {int(top['n'])} rows"
    seeds = f", {answer.seeds} seed{'s' if answer.seeds > 1 else ''}" if answer.tuned else ""
    tests = f", mean of {' and '.join(answer.parts)}" if answer.parts else ""
    bounds = (
        "no interval" if pd.isna(top["low"]) else f"{ci(answer.inputs.level)} {top['low']:.2f} to {top['high']:.2f}"
    )
    return f"{metric} {top['value']:.3f} ({bounds}{n}{seeds}){tests}"


def _facts(recipes: Sequence[Answer]) -> Iterator[tuple[str, str]]:
    """The lines of a card."""
    answer = recipes[0]
    yield "How sure", chance(answer)
    yield "Before fine-tuning", _gain(answer) if answer.tuned and not answer.is_mean else ""
    yield "Full or LoRA", _methods(recipes) if answer.tuned else ""
    yield "Forgetting", forgetting(answer).text if answer.tuned and not answer.is_mean else ""
    yield "More pre-training?", later(answer)
    yield "Cost", cost(answer) if answer.tuned and not answer.is_mean else ""
    yield "What would settle it", settling(answer)


def chance(answer: Answer) -> str:
    """The probability to be the best, and the rivals; what the score amounts to where it is at a baseline."""
    if answer.constant:
        return (
            "Not at all: the model predicts one label on 99 % of rows or more, so its score is the share of that label."
        )
    if len(answer.bases) == 1:
        return "Only this checkpoint was tried."
    names = [f"{name} {shown(chance)}" for name, chance in _likely(answer)[:NAMED]]
    of = f" of {len(answer.bases)}" if answer.tuned else ""  # the table leaves out unlikely untouched ones
    text = f"Probability of being the best{of}: {', '.join(names)}."
    if answer.trivial:
        name, value = answer.trivial
        text += f" No checkpoint is shown to beat {name} ({value:.3f})."
    return text + (" This does not account for other seeds." if answer.tuned and answer.seeds < 2 else "")


def shown(chance: float) -> str:
    """A probability in percent; never 100 %, which no finite number of draws shows."""
    return ">99%" if chance > 0.995 else f"{chance:.0%}"


def _likely(answer: Answer) -> list[tuple[str, float]]:
    """Checkpoints with their probability to be the best, the most likely first; those with the same score as one."""
    tied = answer.tied if len(answer.tied) > 1 else []
    rows = [row for row in answer.bases if row["probability"] >= LIKELY and row not in tied] or (
        [] if tied else [answer.top]
    )
    named = [(checkpoints(answer, [row]).split(" (")[0].lower(), float(row["probability"])) for row in rows]
    if tied:
        named.append((f"the {len(tied)} tied together", sum(float(row["probability"]) for row in tied)))
    return sorted(named, key=lambda pair: -pair[1])


def _gain(answer: Answer) -> str:
    """The checkpoint's score on the test before fine-tuning, and the change."""
    if answer.untouched is None or answer.gain is None:
        return "The checkpoint was not tested before fine-tuning."
    row = answer.gain
    bounds = "" if pd.isna(row["low"]) else f" ({signed(row['low'], '.2f')} to {signed(row['high'], '.2f')})"
    usable = answer.gains is False and not answer.constant and not answer.trivial
    advice = " No gain is shown: the checkpoint may be used as it is." if usable else ""
    return f"{answer.untouched:.3f}; fine-tuning adds {signed(row['value'])}{bounds}.{advice}"


def _methods(recipes: Sequence[Answer]) -> str:
    """The best score of each recipe."""
    best = [
        f"{METHODS.get(answer.method, answer.method)} ({answer.recipe}) {answer.top['value']:.3f}" for answer in recipes
    ]
    if len({answer.method for answer in recipes}) > 1:
        return f"{'; '.join(best)}."
    if not {answer.method for answer in recipes} <= set(METHODS):
        return f"Imported: {', '.join(answer.method for answer in recipes)}."
    first, missing = METHODS.get(recipes[0].method, recipes[0].method), "LoRA was"
    missing = missing if recipes[0].method == "full" else "full fine-tuning was"
    tail = f" Recipes: {'; '.join(best)}." if len(recipes) > 1 else ""
    return f"{first[0].upper()}{first[1:]}; {missing} not tried.{tail}"


def later(answer: Answer) -> str:
    """Whether more pre-training of the best checkpoint's family pays."""
    rows = answer.rows[(answer.rows["topic"] == "pretraining") & (answer.rows["family"] == answer.top["family"])]
    if rows.empty:
        return "" if not answer.is_mean else "Not forecast for a mean."
    row = rows.iloc[-1]
    if pd.isna(row["value"]):
        few = "too few" in row["statement"]
        return "Unknown: too few steps." if few else "Unknown: forecasts of held-out steps fail."
    text = row["statement"].split(": ", 1)[-1]
    return text[0].upper() + text[1:]


def cost(answer: Answer) -> str:
    """The measured hours of fine-tuning for the task."""
    hours = answer.inputs.table("tables/gpu_hours")
    if hours.empty:
        return "Not measured here: the scores were imported." if not answer.inputs.settings["families"] else ""
    rows = hours[(hours["stage"] == "tune") & (hours["train"] == answer.where["train"])]
    jobs, total = int(rows["measured"].sum()), float(rows["hours"].sum())
    return f"{jobs} fine-tunings took {spent(3600 * total)} in all." if jobs else "Not measured."


def spent(seconds: float) -> str:
    """A time in hours, minutes or seconds, whichever fits."""
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= size), ("s", 1))
    return f"{seconds / size:.{0 if size == 1 else 1}f} {unit}"


def _found(recipes: Sequence[Answer]) -> pd.DataFrame:
    """The findings about a task's answers."""
    findings = recipes[0].inputs.table("findings")
    statements = [text for answer in recipes for text in answer.rows["statement"]]
    return findings[findings["statement"].isin(statements)] if len(findings) else findings


def _statements(recipes: Sequence[Answer]) -> list[str]:
    """The sentences about a task in full."""
    topics = ("answer", "pretraining", "cheapest")
    return [text for answer in recipes for text in answer.rows.loc[answer.rows["topic"].isin(topics), "statement"]]


def _marks(answer: Answer) -> list[tuple[str, int, str]]:
    """The audit's errors and warnings against the answer, by kind."""
    found = _found([answer])
    rows = found[found["filter"] == answer.row["filter"]] if len(found) else found
    texts = list(dict.fromkeys(text for warnings in rows.get("warnings", []) for text in warnings))
    parted = [re.match(r"(?:error|warning), (\w+): (.*)", text, re.DOTALL) for text in texts]
    pairs = [(match[1].replace("_", " "), match[2]) for match in parted if match]
    counts = Counter(kind for kind, _ in pairs)
    return [(kind, number, next(text for own, text in pairs if own == kind)) for kind, number in counts.items()]


def lead(shown: Sequence[Card], inputs: PageInputs) -> list[str]:
    """The sentences above the cards: how many answers are clear, and what weakens all of them."""
    if not shown:
        return ["No checkpoint was fine-tuned or compared on a test, so there is no answer."]
    counts = Counter(card.badge for card in shown)
    clear = counts.pop("clear", 0)
    kinds = ", ".join(f"{badge} ({number})" for badge, number in counts.most_common())
    means = sum(card.is_mean for card in shown)
    parts = f" ({len(shown) - means} on a task, {means} on a mean of tests)" if means else ""
    first = f"{clear} of {len(shown)} answers{parts} {'names' if clear == 1 else 'name'} a clearly best checkpoint."
    first += f" Of the others: {kinds}." if kinds else ""
    tops = Counter(name for card in shown if not card.is_mean for name in card.tops)
    name, number = tops.most_common(1)[0] if tops else ("", 0)
    tasks = len(shown) - means
    best = [f"Highest score most often, alone or tied: {name} ({number} of {tasks} tasks)."] if number > 1 else []
    return [first, *best, _audit_line(shown, inputs)]


def _audit_line(shown: Sequence[Card], inputs: PageInputs) -> str:
    """How many of the audit's errors and warnings are about the answers, and which kinds; the rest is about other results."""
    audit = inputs.table("audit")
    severe = Counter(audit["severity"]) if len(audit) else Counter()
    kinds = Counter(kind for card in shown for kind, _, _ in card.marks)
    listed = ", ".join(f"{kind} ({number} of {len(shown)} answers)" for kind, number in kinds.most_common(4))
    text = f"The audit has {severe['error']} errors and {severe['warning']} warnings"
    return f"{text}; about these answers: {listed}." if kinds else f"{text}, none about these answers."


def conditions(row: dict[str, Any]) -> dict[str, Any]:
    """The conditions of a finding's filter; none where it is not JSON."""
    try:
        return json.loads(row["filter"])
    except (TypeError, json.JSONDecodeError):
        return {}
