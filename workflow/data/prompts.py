"""Prompts in the three formats of the published study.

Templates are those of the released code of "Amuro & Char" (arXiv 2408.06663, v5 Table 5; the code where they differ),
including trailing spaces. The published study has no template for `choice`; here it has the usual question-answer form of
ranked multiple choice.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence

from workflow.errors import StudyError
from workflow.task import ROLES, Example, Task, Turn

FORMATS: dict[str, dict[str, str]] = {
    "default": {
        "inference": "### Input_1: {premise}\n ### Input_2: {hypothesis}\n ### Inference: ",
        "paraphrase": "### Input_1: {sentence1}\n ### Input_2: {sentence2}\n ### Paraphrase Classification: ",
        "summary": "### Input: {document}\n ### Summary: ",
        "question": "### Input: {context}\n ### Answer: {answer}\n ### Question: ",
        "choice": "Question: {question}\nAnswer: ",
        "answer": "Question: {question}\nAnswer: ",
    },
    "io": {
        "inference": "{premise} {hypothesis}",
        "paraphrase": "{sentence1} {sentence2}",
        "summary": "{document}",
        "question": "{context}{answer}",
        "choice": "{question}",
        "answer": "{question}",
    },
    "instruct": {
        "inference": "Consider the following texts: Text 1: {premise} Text 2: {hypothesis} The relation is ",
        "paraphrase": (
            "Let’s compare the two sentences: Sentence_1: {sentence1} Sentence_2: {sentence2} Are they paraphrasing?: "
        ),
        "summary": "Please read the following text: {document} Provide a summary: ",
        "question": "Given the context: {context} And the answer: {answer}Generate a suitable question: ",
        "choice": "Please answer the following question: {question} The answer is ",
        "answer": "Answer the question in a few words.\nQuestion: {question}\nAnswer: ",
    },
    "lm_eval": {},  # tasks of lm-evaluation-harness bring their own
}
# The user's turn in a checkpoint's own chat template (`models.chat`).
FORMATS["chat"] = {kind: text.rstrip() for kind, text in FORMATS["instruct"].items()}

# Questions with a passage: instruction and order as in arXiv 2504.12491, Figures 9 and 10.
WITH_CONTEXT = {
    "default": "Context: {context}\nQuestion: {question}\nAnswer: ",
    "io": "{context} {question}",
    "instruct": (
        "Answer the question in a few words. The context may be irrelevant.\nContext: {context}\nQuestion: {question}\nAnswer: "
    ),
}

# Stop strings of the sound protocol: the blank line between few-shot examples, or the start of a new block.
STOPS: dict[str, tuple[str, ...]] = {
    "default": ("\n\n", "###"),
    "io": ("\n\n",),
    "instruct": ("\n\n",),
    "lm_eval": (),
    "chat": (),  # a turn ends as the template says
}

ANSWER_STOP = "\n"  # ends a short answer in the sound protocol, whatever the format

PROTOCOLS = ("sound", "published")
SEPARATOR = {"sound": "\n\n", "published": "\n"}


def stops(task: Task, format: str) -> tuple[str, ...]:
    """Strings that end a completion of a task in the sound protocol."""
    endings = (*STOPS[format], ANSWER_STOP) if task.kind == "answer" else STOPS[format]
    return (*endings, *task.stops)


def template(task: Task, format: str) -> str:
    """The task's template in a format: its own, or that of its kind.

    Errors: StudyError if neither exists.
    """
    text = _template(task, format)
    if text is None:
        raise StudyError(
            f"format '{format}': a task of kind {task.kind!r} has no template in it; allowed: one of its own"
        )
    return text


def _template(task: Task, format: str) -> str | None:
    """The task's template in a format; in `chat` its own for `instruct` may stand for it."""
    text = task.templates.get(format) or (task.templates.get("instruct") if format == "chat" else None)
    return text or FORMATS[format].get(task.kind)


def formats(task: Task) -> list[str]:
    """The formats of a task, as far as its fields are known without its rows."""
    return [
        format
        for format in FORMATS
        if (text := _template(task, format)) and (not task.fields or set(field_names(text)) <= set(task.fields))
    ]


def left_out(task: Task, format: str, rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Fields with text in every row that the task's template in a format does not use."""
    if task.lm_eval:
        return []  # its templates are in its file
    shown = set(field_names(template(task, format)))
    left: list[str] | None = None
    for fields in rows:
        texts = [name for name, text in fields.items() if text.strip() and name not in shown]
        left = texts if left is None else [name for name in left if name in texts]
        if not left:
            return []
    return left or []


def field_names(text: str) -> list[str]:
    """Names of the fields in a template, in order of appearance."""
    return [name for _, name, _, _ in string.Formatter().parse(text) if name]


def prompt(task: Task, fields: Mapping[str, str], format: str, protocol: str = "sound") -> str:
    """The prompt of one example, without few-shot examples.

    `published` keeps the template's trailing space, as in the released code. `sound` moves it to the completion, because
    training text has no prompt that ends in a lone space token.
    """
    text = template(task, format).format_map(fields)
    return text if protocol == "published" or task.lm_eval else text.rstrip(" ")


def completion(text: str, protocol: str = "sound") -> str:
    """An answer as it follows its prompt: with a leading space in `sound`, without one in `published` (no separator in
    `io`).
    """
    return text if protocol == "published" else f" {text}"


def answer(task: Task, example: Example) -> str:
    """The right answer as it follows the prompt that a model is tuned on, with its lead."""
    return example.fields["answer"] if task.lm_eval else completion(example.lead + example.answer)


def demonstration(task: Task, example: Example, format: str, protocol: str = "sound") -> str:
    """A few-shot example, with the separator that ends it."""
    solved = completion(example.lead + example.answer, protocol)
    return prompt(task, example.fields, format, protocol) + solved + SEPARATOR[protocol]


def conversation(turns: Sequence[Turn], end: str) -> tuple[str, list[tuple[int, int]]]:
    """A conversation in open-instruct's format, and the (start, stop) of each reply of the assistant with the `end` (EOS)
    after it.

    The published study fine-tunes on conversations in this format (released code of arXiv 2408.06663, built on
    open-instruct).
    """
    text, spans = "", []
    for turn in turns:
        text += f"<|{turn.role}|>\n"
        start = len(text)
        text += turn.content
        if turn.role == "assistant":
            text += end
            spans.append((start, len(text)))
        text += "\n"
    return text, spans


def tuned_on(task: Task, format: str) -> str:
    """Hash of the text around the fields of an example for fine-tuning in a format."""
    if task.kind == "messages":
        return _hashed(conversation([Turn(role, f"<{role}>") for role in ROLES], "<eos>"))
    if task.lm_eval:
        return _hashed(task.templates)  # the words are in the rows
    probe = _probe(task, format)
    return _hashed([prompt(task, probe.fields, format), completion(probe.answer)])


def evaluated(task: Task, format: str, protocol: str, shown: bool = True) -> str:
    """Hash of the text around the fields of an example for evaluation: prompt, answer, labels, stop strings.

    shown: whether there are few-shot examples.
    """
    if task.lm_eval:
        return _hashed(task.lm_eval.prediction)
    probe = _probe(task, format)
    words = [prompt(task, probe.fields, format, protocol), completion(probe.answer, protocol)]
    words += [demonstration(task, probe, format, protocol)] if shown else []
    return _hashed([*words, task.labels, stops(task, format) if protocol == "sound" else ()])


def _probe(task: Task, format: str) -> Example:
    """An example whose fields contain their own names."""
    return Example({name: f"<{name}>" for name in field_names(template(task, format))}, "<answer>")


def _hashed(words: object) -> str:
    """Short hash of texts."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]
