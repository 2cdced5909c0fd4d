"""Loss of the right answers after demonstrations: as telling as a k-shot accuracy, with less noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from workflow.data import prompts
from workflow.data.demonstrations import Rows
from workflow.errors import StudyError, row_named
from workflow.indicators.measuring import Loss, Material, Measurement, Progress, Subject, losses_of
from workflow.models.encoding import Framing, Split, check_tokens, context_length, fitted, split
from workflow.models.engine import losses
from workflow.study import indicators
from workflow.task import Example, Task


class Answer(NamedTuple):
    """The answer of one row of a task after the demonstrations of one draw, as token ids."""

    task: str
    draw: int
    id: str
    bytes: int
    parts: Split


def measure(
    subject: Subject, settings: Mapping[str, Any], material: Material, progress: Progress | None = None
) -> Measurement:
    """Variant `answer`: the tokens of the answer given prompt and demonstrations, the same rows in every draw."""
    answers = [
        answer
        for name, (task, train, test) in material.tasks.items()
        for answer in _answers(subject, settings, name, task, *indicators.answered(settings, train, test))
    ]
    readings = [losses.Reading([*one.parts.prompt, *one.parts.completion], len(one.parts.prompt)) for one in answers]
    places = [f"task {one.task}, row '{one.id}'" for one in answers]
    found = losses_of(subject, readings, places, settings["batch_tokens"], progress)
    rows = [
        Loss(one.task, one.task, "answer", one.draw, one.id, len(values), one.bytes, float(values.sum()))
        for one, values in zip(answers, found, strict=True)
    ]
    # Prompts are cut to the model's context, but what is scored is the same: its tokens are what has to compare.
    return Measurement(rows, losses.fingerprint(one.parts.completion for one in answers), {})


def _answers(
    subject: Subject, settings: Mapping[str, Any], name: str, task: Task, shown: Sequence[Rows], left: Rows
) -> list[Answer]:
    """The answers of the rows that are read of a task, after the demonstrations of each draw."""
    if not left:
        raise StudyError(
            f"task {name}: no row is left beside its demonstrations; lower shots or draws of the indicator"
        )
    longest = max(_length(subject, example) for _, example in left)
    room = context_length(subject.model) - longest
    found = []
    for draw, own in enumerate(shown):
        framing = Framing(task, settings["format"], "sound", tuple(example for _, example in own), room)
        for row, example in left:
            parts = _parts(subject, framing, example)
            with row_named(f"task {name}, row '{row}'"):
                check_tokens(example.answer, parts.completion)
            found.append(Answer(name, draw, row, len(example.answer.encode()), parts))
    return found


def _lead(example: Example) -> str:
    """What is read but not scored before the answer."""
    return example.leads[example.gold] if example.leads else ""


def _length(subject: Subject, example: Example) -> int:
    """Tokens of an answer with its lead."""
    text = prompts.completion(_lead(example) + example.answer)
    return len(subject.tokenizer(text, add_special_tokens=False)["input_ids"])


def _parts(subject: Subject, framing: Framing, example: Example) -> Split:
    """Prompt and answer of a row as token ids."""
    text = fitted(subject.tokenizer, framing, example).text
    if not example.leads:
        return split(subject.tokenizer, text, [prompts.completion(example.answer)])[0]
    return split(subject.tokenizer, text + prompts.completion(_lead(example)), [example.answer])[0]
