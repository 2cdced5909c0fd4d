"""Reads a row of a task of lm-evaluation-harness as the harness does: text, target and choices, filled in from templates.

Source: lm_eval 0.4.13, `api/task.py` and `utils.apply_template`. Templates run in a sandbox; Python code is never run.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.errors import first_line, shown
from workflow.task import Example, FieldError, Row, check_text


@functools.cache
def _environment() -> Any:
    """The harness's Jinja environment, in which templates can change nothing and reach no internals of Python."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda text, pattern, repl, count=0: re.sub(pattern, repl, text, count=count)
    return environment


@functools.lru_cache(maxsize=1024)
def template(text: str) -> Any:
    """A compiled template. Errors: jinja2.TemplateError."""
    return _environment().from_string(text)


def rendered(key: str, text: str, row: Row) -> str:
    """A template filled in with a row. Errors: FieldError with what the template lacks."""
    try:
        return str(template(text).render(**row))
    except Exception as error:  # whatever an expression of a template raises
        raise FieldError(key, f"{type(error).__name__}: {first_line(error)}", "a template that fits the row") from error


@dataclass(frozen=True)
class Shape:
    """How a row is shown: text, target and choices (a column, template, list, mapping or index), prefix and delimiters."""

    text: Any
    target: Any
    choice: Any
    prefix: str | None
    delimiter: str
    end: str


@dataclass(frozen=True)
class Reader:
    """Reads a row as the harness does: `Task.read`.

    The fields of an example: `description`; `query`, the text up to the answer; `answer`, as it follows the query; `solved`, the
    row as a few-shot example; `row`, a hash that tells whether two rows are the same; `inputs` where the choices are contexts of
    one continuation (a `doc_to_text` that is a number, as for WinoGrande).
    """

    output: str
    description: str
    own: Shape
    shown: Shape

    def __call__(self, row: Row) -> Example:
        """The example of a row. Errors: FieldError for a row that does not fit."""
        fields = {
            "description": _resolved("description", self.description, row) or "",
            "row": hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16],
        }
        choices = _choices(self.own.choice, row)
        text, target = _text(self.own, row, choices), _target(self.own, row, choices)
        if self.output == "generate_until":
            references = _references(target, choices)
            fields |= {"query": self._query(text, row), "answer": self.own.delimiter + references[0]}
            return _checked(Example(fields | self._solved(row), references[0], references, 0))
        assert choices is not None  # the keys of the file were checked
        gold = text if isinstance(text, int) else _gold(target, choices)
        if isinstance(text, int):
            fields |= {"query": choices[gold], "answer": f"{self.own.delimiter}{target}", "inputs": "choices"}
        else:
            fields |= {"query": self._query(text, row), "answer": self.own.delimiter + choices[gold]}
        return _checked(Example(fields | self._solved(row), choices[gold], tuple(choices), gold))

    def _query(self, text: str | int, row: Row) -> str:
        """The row without its answer, up to the prefix of the answer if there is one."""
        text, prefix = str(text), _resolved("gen_prefix", self.own.prefix, row)
        if not prefix:
            return text
        return text + (self.own.delimiter if _apart(text, prefix) else "") + prefix

    def _solved(self, row: Row) -> dict[str, str]:
        """The field with the row as a few-shot example; none where the row cannot be shown as one."""
        try:
            return {"solved": self._demonstration(row)}
        except FieldError:  # only rows that are drawn need it; `shown_rows` raises
            return {}

    def _demonstration(self, row: Row) -> str:
        """The row with its answer, as a few-shot example."""
        shape = self.shown
        choices = _choices(shape.choice, row)
        text, target = _text(shape, row, choices), _target(shape, row, choices)
        if isinstance(text, int):
            assert choices is not None
            text, choices = choices[text], None
        if choices and isinstance(target, int):
            target = choices[_gold(target, choices)]
        answer = target[0] if isinstance(target, list) else target
        if answer == "":
            return text
        prefix = _resolved("gen_prefix", shape.prefix, row)
        between = shape.delimiter if not prefix or _apart(text, prefix) else ""
        return text + between + _joined(prefix, str(answer)) + shape.end


def reader(config: Mapping[str, Any], output: str) -> Reader:
    """The reader of a file without mistakes."""

    def shape(keys: Mapping[str, Any]) -> Shape:
        return Shape(
            text=keys.get("doc_to_text"),
            target=_frozen(keys.get("doc_to_target")),
            choice=_frozen(keys.get("doc_to_choice")),
            prefix=keys.get("gen_prefix"),
            delimiter=keys.get("target_delimiter", " "),
            end=keys.get("fewshot_delimiter", "\n\n"),
        )

    changes = {key: value for key, value in (config.get("fewshot_config") or {}).items() if value is not None}
    return Reader(output, config.get("description", ""), shape(config), shape({**config, **changes}))


def _frozen(value: Any) -> Any:
    """Lists and mappings of choices as tuples."""
    return tuple(value.values() if isinstance(value, Mapping) else value) if isinstance(value, list | dict) else value


def _resolved(key: str, text: str | None, row: Row) -> str | None:
    """A column of the row, or a template filled in."""
    if not text:
        return None
    return str(row[text]) if text in row else rendered(key, text, row)


def _choices(choice: Any, row: Row) -> list[str] | None:
    """The choices of a row; None where the task has none."""
    if choice is None:
        return None
    listed = choice
    if isinstance(choice, str):
        listed = row[choice] if choice in row else _literal("doc_to_choice", rendered("doc_to_choice", choice, row))
    if (
        not isinstance(listed, list | tuple)
        or len(listed) < 1
        or not all(isinstance(entry, str) and entry for entry in listed)
    ):
        raise FieldError("doc_to_choice", listed, "a list of texts that are not empty")
    return list(listed)


def _text(shape: Shape, row: Row, choices: Sequence[str] | None) -> str | int:
    """The text of a row; the place of the right one among choices that are contexts themselves."""
    value: Any = shape.text
    if isinstance(value, str):
        value = row[value] if value in row else rendered("doc_to_text", value, row)
        if isinstance(value, str) and value.isdigit() and choices is not None and shape.text not in row:
            value = _literal("doc_to_text", value)
    several = type(value) is int and choices is not None and 0 <= value < len(choices)
    if not isinstance(value, str) and not several:
        raise FieldError("doc_to_text", value, "text" + (", or the index of a choice" if choices else ""))
    return value


def _target(shape: Shape, row: Row, choices: Sequence[str] | None) -> Any:
    """The target of a row: text, the index of a choice, or a list."""
    value: Any = list(shape.target) if isinstance(shape.target, tuple) else shape.target
    if isinstance(value, str) and value in row:
        value = row[value]
    elif isinstance(value, str):
        value = rendered("doc_to_target", value, row)
        if value.isdigit() and choices is not None:
            return _literal("doc_to_target", value)
        if len(value) >= 2 and value[0] == "[" and value[-1] == "]":
            try:
                return ast.literal_eval(value)
            except (SyntaxError, ValueError):
                return value
    if value is None or (isinstance(value, list) and not value):
        raise FieldError("doc_to_target", value, "a text, a number, or a list that is not empty")
    return value


def _literal(key: str, text: str) -> Any:
    """A list or number that a template wrote."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise FieldError(key, text, "a list or number as Python writes it") from error


def _gold(target: Any, choices: Sequence[str]) -> int:
    """The place of the right choice."""
    if isinstance(target, int) and 0 <= target < len(choices):
        return int(target)
    if isinstance(target, str) and target in choices:
        return list(choices).index(target)
    raise FieldError("doc_to_target", target, "the place of one choice, or its text: " + ", ".join(map(shown, choices)))


def _references(target: Any, choices: Sequence[str] | None) -> tuple[str, ...]:
    """The texts that count as right."""
    if choices is not None:
        if type(target) is not int or not 0 <= target < len(choices):
            raise FieldError("doc_to_target", target, f"the index of a choice, 0 to {len(choices) - 1}")
        return (choices[target],)
    return tuple(map(str, target)) if isinstance(target, list) else (str(target),)


def _apart(first: str, second: str) -> bool:
    """Whether two texts need a delimiter: neither has white space where they meet, and the first is not empty."""
    return bool(first) and not (first[-1].isspace() or second[0].isspace())


def _joined(prefix: str | None, text: str) -> str:
    """A prefix and a text, with a space between them where they need one."""
    if not prefix or not text:
        return prefix or text
    return f"{prefix} {text}" if _apart(prefix, text) else prefix + text


def _checked(example: Example) -> Example:
    """An example of valid text. Errors: FieldError."""
    for name, text in (*example.fields.items(), *(("doc_to_choice", choice) for choice in example.choices)):
        check_text(text, name)
    return example
