"""Tasks that a config declares (`tasks/<name>`): makes a Task from a block of the config, without code of the user.

A block says which rows are read, which columns hold the fields of the prompt and the answer, and how a prompt looks. A path
in a row is a column name; dots and numbers in brackets lead to nested values (`answers.text[0]`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from workflow.data import prompts
from workflow.errors import MistakesError, shown
from workflow.settings import DeclaredTask
from workflow.task import (
    KINDS,
    ROLES,
    Example,
    FieldError,
    Row,
    Task,
    Turn,
    check_text,
    is_blank,
    known,
    misfits,
    splits,
)

# method -> the kind of a block that gives a method only
METHODS = {"label": "classification", "rank": "choice", "generate": "generation", "answer": "answer"}
# method -> required keys of the answer; `keys` is optional beside `choices`
NEEDED = {
    "label": ("answer", "labels"),
    "rank": ("answer", "choices"),
    "generate": ("answer",),
    "answer": ("answer",),
    None: ("turns",),
}
ANSWERS = ("answer", "labels", "choices", "keys", "turns")
PLACE = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
STEP = re.compile(r"\[(?P<index>\d+)\]|(?P<name>[^.\[\]]+)")
# words that YAML 1.1 reads as true and false if they are not quoted
TRUTHS = {True: ("true", "yes", "on"), False: ("false", "no", "off")}
NOTED = 200  # first rows that are checked for unread columns


def task(name: str, block: DeclaredTask) -> Task:
    """The task of a block of the config.

    Errors: MistakesError with one line for each mistake, which names the key, what was found and what is allowed.
    """
    place = f"config.yaml: tasks/{name}"
    if lines := [f"{place}/{line}" for line in _mistakes(block)]:
        raise MistakesError(lines)
    made = _made(block)
    if lines := [f"{place}/{line}" for line in (*misfits(made), *_unused(block, made))]:
        raise MistakesError(lines)
    return made


def fingerprint(declared: Task) -> str:
    """Hash of everything that decides how the rows of a declared task are read."""
    parts = [declared.read, splits(declared), dict(declared.files), *([declared.inline] if declared.inline else [])]
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:16]


def unread(declared: Task, rows: Iterable[Row]) -> list[str]:
    """Columns with text in each of the first rows that neither the prompt nor the answer of a declared task uses."""
    reader = declared.read
    assert isinstance(reader, Reader)
    left: list[str] | None = None
    for row in itertools.islice(rows, NOTED):
        texts = [key for key, value in row.items() if isinstance(value, str) and not is_blank(value)]
        left = [key for key in texts if left is None or key in left]
    read = {column for place in reader.places() for column in (place, STEP.findall(place)[0][1])}
    return [key for key in left or [] if key not in read]


# --- from a block to a task ----------------------------------------------------------------------------------------------


def _kind(block: DeclaredTask) -> str:
    """The kind of a block: its `kind`, or the kind of its `method`."""
    return block["kind"] if "kind" in block else METHODS[block["method"]]


def _made(block: DeclaredTask) -> Task:
    """The task of a valid block."""
    fields = _fields(block)
    words = tuple(dict.fromkeys(word for _, word in _labels(block)))
    reader = Reader(
        method=KINDS[_kind(block)].method,
        fields=tuple((_named(name), place) for name, place in fields.items()),
        optional=tuple(_named(name) for name in block.get("optional", [])),
        answer=block.get("answer"),
        labels=tuple(_labels(block)),
        choices=_listed(block.get("choices")),
        keys=_listed(block.get("keys")),
        turns=block.get("turns"),
        key=block.get("key"),
    )
    return Task(
        kind=_kind(block),
        schema={},
        read=reader,
        train=block.get("train"),
        test=block.get("test"),
        demonstrations=block.get("demonstrations"),
        labels=words,
        hub=block.get("hub"),
        subset=block.get("subset"),
        revision=block.get("revision"),
        path=os.path.expanduser(block["path"]) if "path" in block else None,
        files=block.get("files", {}),
        sizes=block.get("sizes", {}),
        licence=block.get("licence"),
        key=block.get("key"),
        domain=block.get("domain"),
        templates={format: _rewritten(text) for format, text in block.get("templates", {}).items()},
        fields=tuple(name for name, _ in reader.fields),
        stops=tuple(block.get("stops", [])),
        metrics=tuple(block.get("metrics", [])),
    )


def _listed(value: Any) -> Any:
    """A list as a tuple; other values unchanged."""
    return tuple(value) if isinstance(value, list) else value


def _labels(block: DeclaredTask) -> list[tuple[Any, str]]:
    """Label values of rows, each with its label word."""
    labels: Any = block.get("labels", {})
    return list(labels.items()) if isinstance(labels, Mapping) else [(word, word) for word in labels]


def _fields(block: DeclaredTask) -> dict[str, str]:
    """Fields of the prompt, each with its path in a row: those in the block's own templates, else those of the kind."""
    own: Mapping[Any, str] = block.get("templates") or {
        format: kinds[_kind(block)] for format, kinds in prompts.FORMATS.items() if _kind(block) in kinds
    }
    names = [name for text in own.values() for name in prompts.field_names(text)]
    return {name: name for name in names} | dict(block.get("fields", {}))


def _named(place: str) -> str:
    """Name of the prompt field for a path: `answers.text[0]` is `answers_text_0`."""
    return re.sub(r"\W+", "_", place).strip("_")


def _rewritten(text: str) -> str:
    """A template with field names in place of paths, for `str.format`."""
    parts = []
    for literal, place, _, _ in string.Formatter().parse(text):
        parts += [literal.replace("{", "{{").replace("}", "}}"), "" if place is None else f"{{{_named(place)}}}"]
    return "".join(parts)


# --- mistakes ------------------------------------------------------------------------------------------------------------


def _mistakes(block: DeclaredTask) -> Iterator[str]:
    """Mistakes of a block that the schema does not find: `key: found, expected`."""
    if ("kind" in block) == ("method" in block):
        found = "both `kind` and `method`" if "kind" in block else "none"
        yield f"kind: found {found}, expected one of `kind` and `method`"
        return
    yield from _misplaced_rows(block)
    yield from _misplaced_answers(block)
    for format, text in block.get("templates", {}).items():
        yield from _of_template(f"templates/{format}", text)
    if _kind(block) not in prompts.FORMATS["default"] and _kind(block) != "messages" and not block.get("templates"):
        yield f"templates: found none, expected one for each format in use, since {_method(block)} has no built-in templates"
    for key, place in _places(block):
        if not PLACE.fullmatch(place):
            yield f"{key}: {shown(place)} is not a path into a row; allowed: a column, such as text, meta.title or answers[0]"
    if "domain" in block and not known(block["domain"]):
        yield f"domain: {block['domain']!r} is not known; allowed: the name of a task"


def _method(block: DeclaredTask) -> str:
    """The method of a task in the words of its block, for messages."""
    return f"method {block['method']!r}" if "method" in block else f"kind {block['kind']!r}"


def _misplaced_rows(block: DeclaredTask) -> Iterator[str]:
    """Mistakes in the source of rows: there must be one source, inside the study's folder or absolute, and splits must
    differ.
    """
    if "path" in block and "hub" in block:
        yield "hub: found together with `path`, expected one of them"
    for key in ("subset", "revision"):
        if key in block and "hub" not in block:
            yield f"{key}: found without `hub`, expected both or none"
    path = os.path.expanduser(block.get("path", ""))
    if not os.path.isabs(path) and PurePath(os.path.normpath(path)).parts[:1] == ("..",):
        yield f"path: {block['path']!r} points outside the study's folder; allowed: a folder inside it, or an absolute path"
    given: Mapping[str, Any] = {**block}
    for key, other in (("test", "train"), ("demonstrations", "test")):
        if key in given and given[key] == given.get(other):
            yield f"{key}: {given[key]!r} is the split of `{other}` as well; allowed: another split"
    for key in ("files", "sizes"):
        named = [given[split] for split in ("train", "test", "demonstrations") if split in given]
        splits: Any = block.get(key, {})
        for split in sorted(set(splits) - set(named)):
            yield f"{key}: split {split!r} is not read; allowed: {', '.join(map(str, named)) or 'none'}"


def _misplaced_answers(block: DeclaredTask) -> Iterator[str]:
    """Mistakes in the keys of the answer: exactly those of the method are allowed."""
    needed = NEEDED[KINDS[_kind(block)].method]
    for key in needed:
        if key not in block:
            yield f"{key}: missing; {_method(block)} needs {', '.join(needed)}"
    allowed = (*needed, "keys") if "choices" in needed else needed
    for key in ANSWERS:
        if key in block and key not in allowed:
            yield f"{key}: is not allowed for {_method(block)}; allowed: {', '.join(allowed)}"
    texts = [_text_of(value) for value, _ in _labels(block)]
    for text in sorted({text for text in texts if texts.count(text) > 1}):
        yield f"labels: {text!r} appears more than once; allowed: each value once"


def _of_template(key: str, text: str) -> Iterator[str]:
    """Mistakes in a template: braces may contain nothing but a path."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        yield f"{key}: {shown(text)} is not a template ({error}); allowed: text with {{field}}; write a literal brace twice"
        return
    names = [place for _, place, _, _ in parts if place is not None]
    if not names:
        yield f"{key}: {shown(text)} names no field; allowed: text with {{field}}"
    for _, place, form, conversion in parts:
        if place is not None and (not PLACE.fullmatch(place) or place.isdigit()):
            yield f"{key}: {{{place}}} names no field; allowed: a column, such as {{text}} or {{answers[0]}}"
        if form or conversion:
            yield f"{key}: {{{place}}} has a conversion or format specification; allowed: the name of a field alone"
    for place in names:
        clash = [other for other in names if other != place and _named(other) == _named(place)]
        if clash and place < clash[0]:
            yield (
                f"{key}: {{{place}}} and {{{clash[0]}}} become the same field name; allowed: names of `fields` that differ "
                "in letters or digits"
            )


def _places(block: DeclaredTask) -> Iterator[tuple[str, str]]:
    """The keys of a block that hold paths in a row, each with the path."""
    for name, place in block.get("fields", {}).items():
        yield f"fields/{name}", place
    for key in ("answer", "turns"):
        if key in block:
            yield key, block[key]
    for key in ("choices", "keys"):
        value = block.get(key)
        listed = value if isinstance(value, list) and key == "choices" else [value] if isinstance(value, str) else []
        yield from ((key, place) for place in listed)


def _unused(block: DeclaredTask, made: Task) -> Iterator[str]:
    """Fields that the block maps or makes optional but no template shows."""
    shown_names = {
        name for format in prompts.formats(made) for name in prompts.field_names(prompts.template(made, format))
    }
    for key in ("fields", "optional"):
        names: Any = block.get(key, ())
        for name in names:
            if made.kind != "messages" and _named(name) not in shown_names:
                yield f"{key}: no template uses {name!r}; allowed: {', '.join(sorted(shown_names))}"


# --- reading a row -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Reads a row of a declared task (`Task.read`).

    method: of KINDS; fields: prompt field -> path; optional: fields that may be blank or missing; answer, turns: paths;
    labels: value -> label word; choices: path of a list, or one path for each choice; keys: path of a list, or the values,
    that name the choices in order; key: column that identifies a row.
    """

    method: str | None
    fields: tuple[tuple[str, str], ...]
    optional: tuple[str, ...]
    answer: str | None
    labels: tuple[tuple[Any, str], ...]
    choices: str | tuple[str, ...] | None
    keys: str | tuple[Any, ...] | None
    turns: str | None
    key: str | None

    def __call__(self, row: Row) -> Example:
        """The example of a row.

        Errors: FieldError for a row that does not fit.
        """
        if self.key is not None and not isinstance(row.get(self.key), str | int):
            raise FieldError(self.key, row.get(self.key), "text or a whole number that identifies the row")
        if self.turns is not None:
            return Example(fields={}, answer="", turns=_turns(self.turns, at(row, self.turns)))
        fields = {name: _field(row, place, name in self.optional) for name, place in self.fields}
        return Example(fields=fields, **self._answer(row))

    def _answer(self, row: Row) -> dict[str, Any]:
        """Answer, choices and gold index of a row."""
        assert self.answer is not None
        value = at(row, self.answer)
        if self.method == "label":
            return _chosen(tuple(dict.fromkeys(word for _, word in self.labels)), self._word(value))
        if self.method == "rank":
            return self._ranked(row, value)
        if self.method == "answer":
            found = value if isinstance(value, list) else [value]
            texts = tuple(dict.fromkeys(text.strip() for text in found if isinstance(text, str) and not is_blank(text)))
            if not texts:
                raise FieldError(self.answer, value, "a text, or a list with at least one")
            return {"answer": texts[0], "choices": texts, "gold": 0}
        return {"answer": _text(self.answer, value)}

    def _word(self, value: Any) -> str:
        """The label word of a value."""
        for own, word in self.labels:
            if same(value, own):
                return word
        raise FieldError(str(self.answer), value, "one of " + ", ".join(shown(own) for own, _ in self.labels))

    def _ranked(self, row: Row, value: Any) -> dict[str, Any]:
        """Answer, choices and gold index of a row with choices of its own."""
        assert self.answer is not None and self.choices is not None
        if isinstance(self.choices, str):
            found = at(row, self.choices)
            if not isinstance(found, list) or len(found) < 2:
                raise FieldError(self.choices, found, "a list of at least two choices")
            choices = tuple(_text(f"{self.choices}[{number}]", choice) for number, choice in enumerate(found))
        else:
            choices = tuple(_field(row, place, optional=False) for place in self.choices)
            if self.answer in self.choices:
                # A column that always holds the correct choice would reveal it by its position.
                return _chosen(tuple(sorted(choices)), _text(self.answer, value))
        keys = at(row, self.keys) if isinstance(self.keys, str) else self.keys
        if keys is not None:
            return self._keyed(choices, keys, value)
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(choices):
                raise FieldError(self.answer, value, f"the index of a choice, 0 to {len(choices) - 1}")
            return {"answer": choices[value], "choices": choices, "gold": value}
        if choices.count(value) != 1:
            raise FieldError(self.answer, value, "the index of a choice, or one of " + ", ".join(map(shown, choices)))
        return _chosen(choices, value)

    def _keyed(self, choices: tuple[str, ...], keys: Any, value: Any) -> dict[str, Any]:
        """Answer, choices and gold index if the answer names its choice by a key."""
        if not isinstance(keys, list | tuple) or len(keys) < len(choices):
            raise FieldError("keys" if isinstance(self.keys, tuple) else str(self.keys), keys, f"{len(choices)} keys")
        places = [number for number, key in enumerate(keys[: len(choices)]) if same(value, key)]
        if len(places) != 1:
            raise FieldError(str(self.answer), value, "one of " + ", ".join(map(shown, keys[: len(choices)])))
        return {"answer": choices[places[0]], "choices": choices, "gold": places[0]}

    def places(self) -> list[str]:
        """All paths in a row that are read."""
        listed = [self.choices] if isinstance(self.choices, str) else list(self.choices or ())
        single = [self.answer, self.turns, self.key, self.keys if isinstance(self.keys, str) else None]
        return [place for _, place in self.fields] + listed + [place for place in single if place is not None]


def at(row: Row, place: str) -> Any:
    """The value at a path in a row. A column with the whole path as its name takes precedence.

    Errors: FieldError if there is none.
    """
    if place in row:
        return row[place]
    value: Any = row
    for step in STEP.finditer(place):
        if step["index"] is not None:
            if not isinstance(value, list) or int(step["index"]) >= len(value):
                raise FieldError(place, value, f"a list with an entry [{step['index']}]")
            value = value[int(step["index"])]
        elif not isinstance(value, Mapping) or step["name"] not in value:
            there = f"; the row has {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise FieldError(place, None if there else value, f"a value named {step['name']!r}{there}")
        else:
            value = value[step["name"]]
    return value


def same(value: Any, own: Any) -> bool:
    """Whether a value of a row equals one in the config.

    Text counts as what YAML would read it as, because CSV has only text.
    """
    if isinstance(value, str) and not isinstance(own, str):
        return value.strip().casefold() in TRUTHS[own] if isinstance(own, bool) else value.strip() == _text_of(own)
    if isinstance(value, bool) or isinstance(own, bool):
        return value is own
    return value == own


def _text_of(value: Any) -> str:
    """A value of the config as text."""
    return "" if value is None else str(value)


def _chosen(choices: tuple[str, ...], answer: str) -> dict[str, Any]:
    """Answer, choices and gold index of an answer among choices."""
    return {"answer": answer, "choices": choices, "gold": choices.index(answer)}


def _field(row: Row, place: str, optional: bool) -> str:
    """Text of a prompt field; empty for an optional field that is missing."""
    try:
        value = at(row, place)
    except FieldError:
        if not optional:
            raise
        value = None
    return "" if optional and (value is None or value == "") else _text(place, value, optional)


def _text(place: str, value: Any, blank: bool = False) -> str:
    """Text, or a number as text.

    Errors: FieldError for anything else, and for blank text that is not allowed.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or (is_blank(value) and not blank):
        raise FieldError(place, value, "text that is not blank, or a number")
    check_text(value, place)
    return value


def _turns(place: str, value: Any) -> tuple[Turn, ...]:
    """The turns of a conversation."""
    if not isinstance(value, list) or not value:
        raise FieldError(place, value, "a list of turns, each with role and content")
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
            raise FieldError(f"{place}[{number}]", turn, "a turn whose role is one of " + ", ".join(map(repr, ROLES)))
        turns.append(Turn(turn["role"], _text(f"{place}[{number}].content", turn.get("content")).strip()))
    return tuple(turns)
