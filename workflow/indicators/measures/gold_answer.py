"""Loss of the right answers after few-shot examples: like a few-shot accuracy, with less noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workflow.data import prompts
from workflow.data.demonstrations import Rows
from workflow.errors import StudyError, row_named
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts, Measurement, Progress, losses_of
from workflow.models.encoding import Framing, Split, check_tokens, context_length, fitted, split
from workflow.models.engine import losses
from workflow.settings import Indicator
from workflow.study import indicators
from workflow.task import Example, Task


class Answer(NamedTuple):
    """The answer of a task's row after the few-shot examples of one draw, as token ids."""

    task: str
    draw: int
    id: str
    bytes: int
    parts: Split


def measure(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts, progress: Progress | None = None
) -> Measurement:
    """Measure the variant `answer`: tokens of the answer given prompt and few-shot examples, the same rows in every draw."""
    answers = [
        answer
        for name, (task, train, test) in material.tasks.items()
        for answer in _answers(subject, settings, name, task, *indicators.answered(settings, train, test))
    ]
    readings = [losses.Reading([*one.parts.prompt, *one.parts.completion], len(one.parts.prompt)) for one in answers]
    places = [f"task {one.task}, row '{one.id}'" for one in answers]
    token_losses = losses_of(subject, readings, places, settings["batch_tokens"], progress)
    rows = [
        Loss(one.task, one.task, "answer", one.draw, one.id, len(values), one.bytes, float(values.sum()))
        for one, values in zip(answers, token_losses, strict=True)
    ]
    # Prompts are cut to the model's context, but the answers are the same, so their tokens have to be comparable.
    return Measurement(rows, losses.fingerprint(one.parts.completion for one in answers), {})


def _answers(
    subject: LoadedBase, settings: Indicator, name: str, task: Task, shown: Sequence[Rows], left: Rows
) -> list[Answer]:
    """Return the answers of a task's rows after the few-shot examples of each draw."""
    if not left:
        raise StudyError(
            f"task {name}: no row is left after the few-shot examples; lower shots or draws of the indicator"
        )
    longest = max(_length(subject, example) for _, example in left)
    room = context_length(subject.model) - longest
    answers = []
    for draw, demonstrations in enumerate(shown):
        framing = Framing(task, settings["format"], "sound", tuple(example for _, example in demonstrations), room)
        for row, example in left:
            parts = _parts(subject, framing, example)
            with row_named(f"task {name}, row '{row}'"):
                check_tokens(example.answer, parts.completion)
            answers.append(Answer(name, draw, row, len(example.answer.encode()), parts))
    return answers


def _lead(example: Example) -> str:
    """Return the text before the answer that is not scored."""
    return example.leads[example.gold] if example.leads and example.gold is not None else ""


def _length(subject: LoadedBase, example: Example) -> int:
    """Return the number of tokens of an answer with its lead."""
    text = prompts.completion(_lead(example) + example.answer)
    return len(subject.tokenizer(text, add_special_tokens=False)["input_ids"])


def _parts(subject: LoadedBase, framing: Framing, example: Example) -> Split:
    """Return prompt and answer of a row as token ids."""
    text = fitted(subject.tokenizer, framing, example).text
    if not example.leads:
        return split(subject.tokenizer, text, [prompts.completion(example.answer)])[0]
    return split(subject.tokenizer, text + prompts.completion(_lead(example)), [example.answer])[0]
