"""The Task contract: how the rows of one dataset become prompt fields and a reference answer.

A task is a module `workflow/tasks/<name>.py` that defines `TASK`; the module's name is the task's name in paths,
configs and tables. Nothing else has to be touched to add one.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from workflow import tasks
from workflow.data.retrieval import Index
from workflow.errors import StudyError, shown
from workflow.storage import hub
from workflow.storage.files import json_lines

Row = Mapping[str, Any]

EXPORT = "refs/convert/parquet"  # where the hub keeps Parquet files of a dataset that is itself a loading script
GENERATED = Path("resources/miniworld")


class Text(str):
    """A schema entry: text that must not be blank."""


@dataclass(frozen=True)
class Kind:
    """What all tasks of a kind share.

    method: how a prediction is made (`label`: among the task's label words, `rank`: among the row's own choices,
    `generate`: free text, `answer`: text of which any of the row's choices is right; None: never, the kind is for tuning
    alone); new_tokens: the longest generation, in tokens (the study's 5 for label words, 60 for text).
    """

    method: str | None
    new_tokens: int


KINDS = {
    "inference": Kind(method="label", new_tokens=5),
    "paraphrase": Kind(method="label", new_tokens=5),
    "choice": Kind(method="rank", new_tokens=5),
    "summary": Kind(method="generate", new_tokens=60),
    "question": Kind(method="generate", new_tokens=60),
    "answer": Kind(method="answer", new_tokens=32),
    "messages": Kind(method=None, new_tokens=0),
}

ROLES = ("system", "user", "assistant")


class Turn(NamedTuple):
    """What one side of a conversation says: role (one of ROLES) and content."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One row in canonical form: text only, no tokenizer.

    fields: what the templates of the task's kind name; choices: label words or answer options, of an `answer` task all
    texts that count as right, empty for free text; answer: the reference text (of a `label` or `rank` task: the right
    choice, of an `answer` task the first); gold: index of the answer in `choices`, None for free text; leads: text between
    prompt and choice that is read but not scored, one for each choice, empty when there is none (WinoGrande, whose options
    stand before the scored words); turns: of a task of kind `messages` the conversation, whose fields and answer are empty.
    """

    fields: Mapping[str, str]
    answer: str
    choices: tuple[str, ...] = ()
    gold: int | None = None
    leads: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Task:
    """One dataset read as prompt fields + reference answer.

    kind: a key of KINDS; schema: the row's fields and their types as on the hub (a type, a one-element list for a
    list, a dict for a struct, Text for a str that must not be blank; other fields may be there); read: row -> Example,
    raising FieldError for a row that does not fit; labels: the label words of a `label` task in label order; hub:
    repository id on the hub, None for a generated task; subset: the hub's configuration name; revision: the hub commit
    or branch, EXPORT where the dataset's own branch holds a loading script, which is never run; folder: name of the
    folder under `data_root`, the task's own name unless given; train, test: split names, train None where the dataset
    has no training split of its own, test None where it is only tuned on; files: split name -> file stem in the folder,
    where they differ; sizes: split name -> rows on the hub, to reckon with before they are read; licence: as its card or
    source states it; key: the field that identifies a row (None: the row's number); domain: the task whose domain the
    rows are of, None for one of its own;
    templates: format -> template where the kind's own does not fit; retrieved: whether the passage of the study's
    `passages` that fits a row's question best becomes its field `context`; version: raise it when the reading of rows changes
    what they mean.
    """

    kind: str
    schema: Mapping[str, Any]
    read: Callable[[Row], Example]
    test: str | None
    train: str | None = None
    labels: tuple[str, ...] = ()
    hub: str | None = None
    subset: str | None = None
    revision: str | None = None
    folder: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    licence: str | None = None
    key: str | None = None
    domain: str | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    retrieved: bool = False
    version: int = 1


class FieldError(ValueError):
    """A field of a row that does not fit: its name, what was found, what is allowed."""

    def __init__(self, name: str, found: object, allowed: str) -> None:
        super().__init__(f"field '{name}': found {shown(found)}, expected {allowed}")


def names() -> list[str]:
    """Names of all tasks, sorted: the modules of `workflow.tasks`."""
    return list(_names())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(tasks.__path__)))


def load(name: str) -> Task:
    """The task of that name.

    Errors: StudyError when there is no such module.
    """
    if name not in names():
        raise StudyError(f"task '{name}' is not known; allowed: {', '.join(names())}")
    return importlib.import_module(f"workflow.tasks.{name}").TASK


def domain(name: str) -> str:
    """The task that a task's domain is named after: a test is in the domain of what was tuned on where both have the same.

    What is no task here, such as an imported benchmark, is a domain of its own.
    """
    return (load(name).domain if known(name) else None) or name


def known(name: str) -> bool:
    """Whether there is a task of that name; tests of imported scores may be others."""
    return name in _names()


def kind(name: str) -> str | None:
    """The kind of a task; None for what is no task here."""
    return load(name).kind if known(name) else None


def method(name: str) -> str | None:
    """How a test is predicted by its kind (`label`, `rank`, `generate`, `answer`); None for what is no task here."""
    return KINDS[load(name).kind].method if known(name) else None


def labels(name: str) -> tuple[str, ...]:
    """The label words of a task; none for other tests."""
    return load(name).labels if known(name) else ()


def module_path(name: str) -> Path:
    """The file that defines the task: an input of every rule whose result depends on how rows are read."""
    return Path(tasks.__path__[0]) / f"{name}.py"


def module_paths(name: str) -> list[Path]:
    """The file that defines the task and those of the task modules it builds on, sorted."""
    module = importlib.import_module(f"{tasks.__name__}.{name}")
    built_on = [
        value.__name__.rsplit(".", 1)[1]
        for value in vars(module).values()
        if inspect.ismodule(value) and value.__name__.startswith(f"{tasks.__name__}.")
    ]
    return sorted(module_path(part) for part in (name, *built_on))


def one_of(row: Row, name: str, allowed: Iterable[Any]) -> Any:
    """The row's value of a field that must be among the allowed ones.

    Errors: FieldError otherwise; so a hidden gold label (-1) never becomes a class.
    """
    options = list(allowed)
    value = row[name]
    if not any(type(value) is type(option) and value == option for option in options):
        raise FieldError(name, value, "one of " + ", ".join(map(repr, options)))
    return value


def is_blank(text: str) -> bool:
    """Whether a text has nothing to see: white space and characters without a form, such as zero-width ones, alone."""
    return not any(sign.isprintable() and not sign.isspace() for sign in text)


def check_text(value: str, name: str) -> None:
    """FieldError for text that is none in any encoding: JSON can name half a character (a lone surrogate)."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(name, value, f"whole characters, unlike character {error.start + 1}") from error


def answered(question: str, answers: Sequence[str], name: str) -> Example:
    """The example of a question with all answers that count, the first of which is the one to write.

    name: of the row's field with the answers. Errors: FieldError when there is none.
    """
    texts = list(dict.fromkeys(text.strip() for text in answers if not is_blank(text)))
    if not texts:
        raise FieldError(name, answers, "at least one answer")
    return Example(fields={"question": question}, answer=texts[0], choices=tuple(texts), gold=0)


def check_types(value: Any, expected: Any, name: str) -> None:
    """Compare a value with a schema entry (a type, [element], or {field: entry}); FieldError names the first misfit."""
    if isinstance(expected, dict):
        if not isinstance(value, Mapping):
            raise FieldError(name, value, "an object with " + ", ".join(expected))
        for key, entry in expected.items():
            inner = f"{name}.{key}" if name else key
            if key not in value:
                raise FieldError(inner, None, "a value: the field is missing")
            check_types(value[key], entry, inner)
    elif isinstance(expected, list):
        if not isinstance(value, list | tuple):
            raise FieldError(name, value, "a list")
        for number, element in enumerate(value):
            check_types(element, expected[0], f"{name}[{number}]")
    elif expected is Text:
        if not isinstance(value, str) or is_blank(value):
            raise FieldError(name, value, "text that is not blank")
    elif not _is_of(value, expected):
        raise FieldError(
            name, value, "a finite number" if expected is float else f"a value of type {expected.__name__}"
        )
    if isinstance(value, str):
        check_text(value, name)


def _is_of(value: Any, expected: type) -> bool:
    """Whether a value is of a type: a whole number is a float as well; True, False, NaN and Infinity are no numbers."""
    if isinstance(value, bool) and expected is not bool:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, int | float if expected is float else expected)


def read_folder(root: Path, task: Task, name: str, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of a split from `<root>/<folder>/<split>.jsonl` with where each stands (`file, row 12`), for messages.

    Errors: StudyError when the file is missing, is not UTF-8, or a line is not a JSON object.
    """
    path = split_file(root, task, name, split)
    if not path.is_file():
        raise StudyError(f"{path}: split '{split}' of task '{name}' is missing; expected one JSON object a line")
    yield from json_lines(path)


def pin(name: str) -> dict[str, Any]:
    """What the hub holds of the task's dataset now (`hub.pin_dataset`).

    Errors: StudyError with the hub client's reason when it cannot be read.
    """
    task = load(name)
    with hub.errors(f"task '{name}': {task.hub}"):
        # The export keeps each configuration in a folder of its own and does not know it by name.
        return hub.pin_dataset(task.hub, task.subset, task.revision, folders=task.revision == EXPORT)


def read_hub(pinned: hub.Pin, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of a split of a pinned dataset, with where each stands.

    Errors: StudyError when the dataset cannot be read.
    """
    for number, row in enumerate(hub.rows(pinned, split), start=1):
        yield f"{pinned['repo']} {split}, row {number}", row


def canonical(task: Task, split: str, rows: Iterable[tuple[str, Row]]) -> Iterator[dict[str, Any]]:
    """Rows of one split in the columns of `tables.EXAMPLES`.

    Errors: StudyError with place, field and reason for a row that does not fit the schema; the same for a row key
    that occurs twice.
    """
    seen: dict[str, str] = {}
    for number, (place, row) in enumerate(rows, start=1):
        try:
            check_types(row, dict(task.schema), "")
            example = task.read(row)
        except FieldError as error:
            raise StudyError(f"{place}: {error}") from error
        key = str(row[task.key]) if task.key else str(number)
        if key in seen:
            raise StudyError(
                f"{place}: field '{task.key}': {key!r} is already used by {seen[key]}; expected a unique value"
            )
        seen[key] = place
        yield {
            "id": f"{split}/{key}",
            "split": split,
            "fields": dict(example.fields),
            "choices": list(example.choices),
            "leads": list(example.leads),
            "answer": example.answer,
            "gold": example.gold,
            "turns": [turn._asdict() for turn in example.turns],
        }


def example_of(row: Mapping[str, Any]) -> Example:
    """The Example behind a row of `tables.EXAMPLES`, as read back from Parquet."""
    return Example(
        fields=dict(row["fields"]),
        answer=row["answer"],
        choices=tuple(row["choices"]),
        gold=row["gold"],
        leads=tuple(row["leads"]),
        turns=tuple(Turn(**turn) for turn in row["turns"]),
    )


def row_root(task: Task, data_root: str | None) -> Path | None:
    """The folder that holds the task's rows: the generated world, `data_root`, or None where they come from the hub."""
    if task.hub is None:
        return GENERATED
    return Path(data_root) if data_root else None


def splits(task: Task) -> list[str]:
    """The splits a task reads, training first."""
    return list(dict.fromkeys(split for split in (task.train, task.test) if split))


def row_files(name: str, data_root: str | None) -> list[str]:
    """The files that hold the task's rows; none where they come from the hub."""
    task = load(name)
    root = row_root(task, data_root)
    return [str(split_file(root, task, name, split)) for split in splits(task)] if root else []


def check_files(name: str, data_root: str | None) -> None:
    """StudyError naming the first file of the task that `data_root` lacks."""
    for path in row_files(name, data_root):
        if not Path(path).is_file():
            raise StudyError(f"{path}: missing; expected the rows of task '{name}', one JSON object a line (data_root)")


def split_file(root: Path, task: Task, name: str, split: str) -> Path:
    """The file of a split in a local folder."""
    return root / (task.folder or name) / f"{task.files.get(split, split)}.jsonl"


def prepared(
    name: str, data_root: str | None, pinned: hub.Pin | None = None, passages: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """All rows of a task in the columns of `tables.EXAMPLES`, read from wherever `row_root` says; of the hub what is pinned.

    passages: those that a `retrieved` task takes a row's context from, the best for its question by BM25; none of them where
    none shares a word with it.
    Errors: StudyError naming file, row, field and reason for a row that does not fit, or a split without rows.
    """
    task = load(name)
    root = row_root(task, data_root)
    index = Index(passages) if task.retrieved else None
    for split in splits(task):
        found = read_hub(pinned, split) if pinned else read_folder(root, task, name, split)
        count = 0
        for row in canonical(task, split, found):
            count += 1
            yield row if index is None else _with_context(row, index, passages)
        if not count:
            raise StudyError(f"{root or task.hub}: split '{split}' of task '{name}' has no rows; expected at least one")


def _with_context(row: dict[str, Any], index: Index, passages: Sequence[str]) -> dict[str, Any]:
    """A row with the passage that fits its question best."""
    best = index.best(row["fields"]["question"])
    return {**row, "fields": {**row["fields"], "context": passages[best[0]] if best else ""}}


Rows = list[tuple[str, Example]]


def examples(name: str, path: Path) -> tuple[Task, Rows, Rows]:
    """A prepared task with its training and its test rows, each (id, Example); either may be none."""
    from workflow.storage import tables

    task = load(name)
    tables.check_origin(path)
    rows = tables.rows(path)
    train, test = (
        [(row["id"], example_of(row)) for row in rows if row["split"] == split] for split in (task.train, task.test)
    )
    return task, train, test
