"""The Task contract: how the rows of one dataset become prompt fields and a reference answer.

A task is a module `workflow/tasks/<name>.py` that defines `TASK`, such a module `tasks/<name>.py` in the study's folder, or
a block `tasks/<name>` of the study's config (`data.declared`). The name of the module or block is the name of the task in
paths, configs and tables. A new task needs no other change.
"""

from __future__ import annotations

import glob
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workflow import registry, tasks
from workflow.data.retrieval import Index
from workflow.errors import MistakesError, StudyError, shown
from workflow.storage import hub
from workflow.storage.files import ROW_FILES, file_rows

if TYPE_CHECKING:
    from workflow.data.lm_eval_tasks import HarnessTask

Row = Mapping[str, Any]

EXPORT = "refs/convert/parquet"  # branch with Parquet files of a dataset that is itself a loading script
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


# Kinds named after a method (`classification`, `generation`) have no templates; their tasks define them.
KINDS = {
    "inference": Kind(method="label", new_tokens=5),
    "paraphrase": Kind(method="label", new_tokens=5),
    "choice": Kind(method="rank", new_tokens=5),
    "summary": Kind(method="generate", new_tokens=60),
    "question": Kind(method="generate", new_tokens=60),
    "answer": Kind(method="answer", new_tokens=32),
    "messages": Kind(method=None, new_tokens=0),
    "classification": Kind(method="label", new_tokens=5),
    "generation": Kind(method="generate", new_tokens=60),
}

ROLES = ("system", "user", "assistant")


class Turn(NamedTuple):
    """One message of a conversation: role (one of ROLES) and content."""

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

    @property
    def lead(self) -> str:
        """Text before the answer that is read but not scored; may be empty."""
        return self.leads[self.gold] if self.leads and self.gold is not None else ""


@dataclass(frozen=True)
class Task:
    """One dataset read as prompt fields + reference answer.

    kind: a key of KINDS; schema: the row's fields and their types as on the hub (a type, a one-element list for a
    list, a dict for a struct, Text for a str that must not be blank; other fields may be there); read: row -> Example,
    raising FieldError for a row that does not fit; labels: the label words of a `label` task in label order; hub:
    repository id on the hub, None for rows of `path`, `data_root` or the generated world; subset: the hub's configuration
    name; revision: the hub commit or branch, EXPORT where the dataset's own branch holds a loading script, which is never
    run; folder: name of the folder under `data_root`, the task's own name unless given; train, test: split names, train None
    where the dataset has no training split of its own, test None where it is only tuned on; files: split name -> file stem
    in the folder, where they differ; sizes: split name -> rows on the hub, to estimate with before they are read; licence: as
    its card or source states it; key: the field that identifies a row (None: the row's number); domain: the task whose domain
    the rows are of, None for one of its own; templates: format -> template where the kind's own does not fit; retrieved:
    whether the passage of the study's `passages` that fits a row's question best becomes its field `context`; version: raise it
    when the reading of rows changes what they mean;
    path: folder that holds the rows, instead of one of `data_root`; demonstrations: the split that few-shot examples are drawn
    from, the training split unless given; fields: names of the fields that each example has, none where only its rows tell;
    stops: what ends an answer, beside what does in every task of its kind; metrics: those that are computed, the first of which
    analyses follow, none for all of its method; inline: rows of splits that are in no file; lm_eval: how a task of
    lm-evaluation-harness is evaluated, None for all others.
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
    path: str | None = None
    demonstrations: str | None = None
    fields: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    inline: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    lm_eval: HarnessTask | None = None


class FieldError(ValueError):
    """A field of a row that does not fit: its name, what was found and what is allowed."""

    def __init__(self, name: str, found: object, allowed: str) -> None:
        super().__init__(f"field '{name}': found {shown(found)}, expected {allowed}")


def names() -> list[str]:
    """Names of all tasks, sorted: modules of `workflow.tasks`, modules of the study, and tasks that its config declares."""
    return sorted({*_modules(os.getcwd()), *registry.tasks.blocks})


@cache
def _modules(study: str) -> frozenset[str]:
    """Names of the modules that are tasks, for a study in a folder."""
    return frozenset(registry.modules(tasks))


def load(name: str) -> Task:
    """The task of this name.

    Errors: StudyError if there is none, or if it violates the contract.
    """
    if name in registry.tasks.blocks:
        return _declared(name)
    if name not in _modules(os.getcwd()):
        raise StudyError(f"task '{name}' is not known; allowed: {', '.join(names())}")
    return _of_module(name, os.getcwd())


def _declared(name: str) -> Task:
    """The task of a block of the config."""
    from workflow.data import declared, lm_eval_tasks

    made, block = registry.tasks.made, registry.tasks.blocks[name]
    if name not in made:
        made[name] = lm_eval_tasks.task(block) if "lm_eval" in block else declared.task(name, block)
    return made[name]


@cache
def _of_module(name: str, study: str) -> Task:
    """The task of a module, for a study in a folder.

    Errors: StudyError naming the file, and the line where its code fails.
    """
    path = os.path.relpath(module_path(name))
    found = getattr(registry.module(tasks, name), "TASK", None)
    if not isinstance(found, Task):
        raise StudyError(f"{path}: found no TASK; expected a line `TASK = Task(...)`")
    if mistakes := [f"{path}: {line}" for line in misfits(found)]:
        raise MistakesError(mistakes)
    return found


def misfits(task: Task) -> Iterator[str]:
    """Violations of the contract by a task: one line each, with what was found and what is allowed."""
    from workflow.data import prompts

    if task.kind not in KINDS:
        yield f"kind: {task.kind!r} is not known; allowed: {', '.join(KINDS)}"
        return
    own = KINDS[task.kind].method
    if own == "label" and len(set(task.labels)) < 2:
        yield f"labels: found {shown(task.labels)}, expected two label words or more, which kind {task.kind!r} needs"
    if own != "label" and task.labels:
        yield f"labels: found {shown(task.labels)}, expected none, since kind {task.kind!r} has no label words"
    if not task.train and not task.test:
        yield "test: found no split, expected `test` or `train`"
    if own is None and task.test:
        yield f"test: found {task.test!r}, expected none, since kind {task.kind!r} is only used for fine-tuning"
    for format in sorted(set(task.templates) - set(prompts.FORMATS)):
        yield f"templates: {format!r} is not known; allowed: {', '.join(prompts.FORMATS)}"


def domain(name: str) -> str:
    """The task that a domain is named after. A test is in-domain if it has the same domain as the fine-tuning task.

    A name that is no task here, such as an imported benchmark, is a domain of its own.
    """
    return (load(name).domain if known(name) else None) or name


def components(train: str) -> tuple[str, ...]:
    """The tasks that a model is fine-tuned on: those of a mix of the study, else the one of this name."""
    return tuple(registry.tasks.mixes.get(train, (train,)))


def at_home(train: str, test: str) -> bool:
    """Whether a test is one of the tasks that a model is fine-tuned on."""
    return test in components(train)


def in_domain(train: str, test: str) -> bool:
    """Whether a test has the domain of one of the tasks that a model is fine-tuned on."""
    return domain(test) in map(domain, components(train))


def counts_as_in_domain(train: str, test: str) -> bool:
    """Whether analyses count a test as in the domain of the fine-tuning: any test after instruction tuning, which has none."""
    return on_instructions(train) or in_domain(train, test)


def alike(train: str, test: str) -> bool:
    """Whether a test is of the kind of one of the tasks that a model is fine-tuned on."""
    return kind(test) in map(kind, components(train))


def on_instructions(train: str) -> bool:
    """Whether a model is fine-tuned on conversations, which have no domain."""
    return "messages" in map(kind, components(train))


def known(name: str) -> bool:
    """Whether a task of this name exists; tests of released scores may have other names."""
    return name in registry.tasks.blocks or name in _modules(os.getcwd())


def kind(name: str) -> str | None:
    """The kind of a task; None for a name that is no task here."""
    return load(name).kind if known(name) else None


def method(name: str) -> str | None:
    """The prediction method of a test (`label`, `rank`, `generate`, `answer`); None for a name that is no task here."""
    return KINDS[load(name).kind].method if known(name) else None


def labels(name: str) -> tuple[str, ...]:
    """The label words of a task; empty for other tests."""
    return load(name).labels if known(name) else ()


def module_path(name: str) -> Path:
    """The file that defines a task which is a module."""
    return registry.path(tasks, name)


def module_paths(name: str) -> list[Path]:
    """The file that defines a task, and the files of the sibling modules that it imports, directly or not, sorted."""
    names, left = {name}, [name]
    while left:
        found = _built_on(left.pop()) - names
        names |= found
        left += found
    return sorted(map(module_path, names))


def _built_on(name: str) -> set[str]:
    """The sibling modules that a task's module imports."""
    values = vars(registry.module(tasks, name)).values()
    sources = [value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) for value in values]
    prefix = f"{tasks.__name__}."
    return {
        source.removeprefix(prefix) for source in sources if isinstance(source, str) and source.startswith(prefix)
    } - {name}


def one_of(row: Row, name: str, allowed: Iterable[Any]) -> Any:
    """The value of a field that must be one of the allowed ones.

    Errors: FieldError otherwise. A hidden gold label (-1) therefore never becomes a class.
    """
    options = list(allowed)
    value = row[name]
    if not any(type(value) is type(option) and value == option for option in options):
        raise FieldError(name, value, "one of " + ", ".join(map(repr, options)))
    return value


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: only white space and characters without a shape, such as zero-width ones."""
    return not any(sign.isprintable() and not sign.isspace() for sign in text)


def check_text(value: str, name: str) -> None:
    """Raise FieldError for text that no encoding can express: JSON can contain a lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FieldError(name, value, f"valid Unicode, unlike character {error.start + 1}") from error


def answered(question: str, answers: Sequence[str], name: str) -> Example:
    """The example of a question with all accepted answers; the first is the one to generate. name: of the row's field with
    the answers.

    Errors: FieldError if there is none.
    """
    texts = list(dict.fromkeys(text.strip() for text in answers if not is_blank(text)))
    if not texts:
        raise FieldError(name, answers, "at least one answer")
    return Example(fields={"question": question}, answer=texts[0], choices=tuple(texts), gold=0)


def check_types(value: Any, expected: Any, name: str) -> None:
    """Compare a value with a schema entry (a type, [element], or {field: entry}).

    Errors: FieldError for the first mismatch.
    """
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
    """Whether a value has a type. An int is also a float; True, False, NaN and Infinity are no numbers."""
    if isinstance(value, bool) and expected is not bool:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, int | float if expected is float else expected)


def read_folder(root: Path, task: Task, name: str, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of a split from its files in a folder, each with its position (`file, row 12`) for messages.

    Errors: StudyError if a file is missing or cannot be read, or a row is not an object.
    """
    for path in split_files(root, task, name, split):
        if not path.is_file():
            raise StudyError(f"{path}: split '{split}' of task '{name}' is missing; expected {EXPECTED}")
        yield from file_rows(path, typed=task.lm_eval is not None)


def pin(name: str) -> dict[str, Any]:
    """Pin the task's dataset on the hub (`hub.pin_dataset`).

    Errors: StudyError with the hub client's reason if it cannot be read.
    """
    task = load(name)
    if task.hub is None:
        raise StudyError(f"task '{name}' has no dataset on the hub; expected one with `hub=`")
    with hub.errors(f"task '{name}': {task.hub}"):
        # The export has one folder for each configuration and no configuration names.
        return hub.pin_dataset(task.hub, task.subset, task.revision, folders=task.revision == EXPORT)


def read_hub(pinned: hub.Pin, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of a split of a pinned dataset, each with its position.

    Errors: StudyError if the dataset cannot be read.
    """
    for number, row in enumerate(hub.rows(pinned, split), start=1):
        yield f"{pinned['repo']} {split}, row {number}", row


def canonical(task: Task, split: str, rows: Iterable[tuple[str, Row]]) -> Iterator[dict[str, Any]]:
    """Rows of one split in the columns of `tables.EXAMPLES`.

    Errors: StudyError with position, field and reason for a row that does not fit the schema or repeats a row key.
    """
    seen: dict[str, str] = {}
    for number, (place, row) in enumerate(rows, start=1):
        try:
            check_types(row, dict(task.schema), "")
            example = task.read(row)
            check_example(task, example)
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


def check_example(task: Task, example: Example) -> None:
    """Raise FieldError if an example lacks what its kind needs, so that no later job fails on it."""
    own, choices, gold = KINDS[task.kind].method, example.choices, example.gold
    if own == "label" and choices != task.labels:
        raise FieldError("choices", choices, f"the label words of the task, {', '.join(task.labels)}")
    if own in ("label", "rank", "answer"):
        if type(gold) is not int or not 0 <= gold < len(choices):
            raise FieldError("gold", gold, f"the place of the answer among {len(choices)} choices, from 0")
        if choices[gold] != example.answer:
            raise FieldError("answer", example.answer, f"the choice at place {gold}, {shown(choices[gold])}")
    if example.leads and len(example.leads) != len(choices):
        raise FieldError("leads", example.leads, f"one for each of the {len(choices)} choices")


def example_of(row: Mapping[str, Any]) -> Example:
    """The Example of a row of `tables.EXAMPLES`, as read from Parquet."""
    return Example(
        fields=dict(row["fields"]),
        answer=row["answer"],
        choices=tuple(row["choices"]),
        gold=row["gold"],
        leads=tuple(row["leads"]),
        turns=tuple(Turn(**turn) for turn in row["turns"]),
    )


def generated(name: str) -> bool:
    """Whether a task's rows come from the generated world."""
    task = load(name)
    return not task.hub and not task.path and (task.folder or name).startswith("mini_")


def row_root(name: str, data_root: str | None) -> Path | None:
    """The folder of a task's rows, or a parent of it: the generated world, the task's `path`, or `data_root`; None for rows
    from the hub.

    Errors: StudyError for a task that has none of them.
    """
    task = load(name)
    if generated(name):
        return GENERATED
    if task.path:
        return Path(task.path)
    if data_root is None and not task.hub:
        declared = name in registry.tasks.blocks
        place = f"config.yaml: tasks/{name}" if declared else os.path.relpath(module_path(name))
        raise StudyError(
            f"{place}: found neither `hub` nor `path`, nor `data_root` in the config; expected one of them"
        )
    return Path(data_root) if data_root else None


def splits(task: Task) -> list[str]:
    """The splits a task reads, training first."""
    return list(dict.fromkeys(split for split in (task.train, task.demonstrations, task.test) if split))


def row_files(name: str, data_root: str | None) -> list[str]:
    """The files of a task's rows; none for rows from the hub."""
    task, root = load(name), row_root(name, data_root)
    in_files = [split for split in splits(task) if split not in task.inline]
    return [str(path) for split in in_files for path in split_files(root, task, name, split)] if root else []


EXPECTED = f"one JSON object a line (.jsonl), or a table ({', '.join(ROW_FILES[1:])})"


def check_files(name: str, data_root: str | None) -> None:
    """Raise StudyError naming the first missing file of a task."""
    for path in row_files(name, data_root):
        if not Path(path).is_file():
            raise StudyError(f"{path}: missing; expected the rows of task '{name}', {EXPECTED} ({_key(name)})")


def _key(name: str) -> str:
    """The config key that locates a task's rows."""
    return f"tasks/{name}/path" if load(name).path else "data_root"


def split_files(root: Path, task: Task, name: str, split: str) -> list[Path]:
    """The files of a split in a local folder.

    One JSON Lines, CSV or Parquet file, or all shards of a Parquet file as named on the hub
    (`train-00000-of-00002.parquet`). If there is none, the name that a JSON Lines file would have. Errors: StudyError for
    several candidates and for missing shards.
    """
    folder, stem = root if task.path else root / (task.folder or name), task.files.get(split, split)
    if stem.endswith(ROW_FILES):
        return [folder / stem]
    whole = [path for suffix in ROW_FILES if (path := folder / f"{stem}{suffix}").is_file()]
    shards = sorted(folder.glob(f"{glob.escape(stem)}-{'[0-9]' * 5}-of-{'[0-9]' * 5}.parquet"))
    if shards and len(shards) != int(shards[0].stem[-5:]):
        raise StudyError(
            f"{folder}: found {len(shards)} of the {int(shards[0].stem[-5:])} files of split '{split}'; expected all"
        )
    there = [*whole, *shards[:1]]
    if len(there) > 1:
        named = ", ".join(path.name for path in there)
        raise StudyError(
            f"{folder}: split '{split}' of task '{name}' appears more than once ({named}); expected one of them"
        )
    return whole or shards or [folder / f"{stem}{ROW_FILES[0]}"]


def prepared(
    name: str, data_root: str | None, pinned: hub.Pin | None = None, passages: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """All rows of a task in the columns of `tables.EXAMPLES`, read from `row_root` or from the pinned dataset.

    passages: a `retrieved` task takes the context of a row from them, the best for its question by BM25; empty if no passage
    shares a word with it. Errors: StudyError naming file, row, field and reason for a row that does not fit, or a split
    without rows.
    """
    task, root = load(name), row_root(name, data_root)
    index = Index(passages) if task.retrieved else None
    for split in splits(task):
        found = _read(name, split, root, pinned)
        count = 0
        for row in canonical(task, split, found):
            count += 1
            yield row if index is None else _with_context(row, index, passages)
        if not count:
            raise StudyError(f"{root or task.hub}: split '{split}' of task '{name}' has no rows; expected at least one")


def _read(name: str, split: str, root: Path | None, pinned: hub.Pin | None) -> Iterator[tuple[str, Row]]:
    """Rows of a split with where each stands: in the task itself, of a pinned dataset, or in a folder."""
    task = load(name)
    if split in task.inline:
        return iter(
            [(f"{split} of task '{name}', row {number}", row) for number, row in enumerate(task.inline[split], 1)]
        )
    return read_hub(pinned, split) if pinned else read_folder(root or GENERATED, task, name, split)


def _with_context(row: dict[str, Any], index: Index, passages: Sequence[str]) -> dict[str, Any]:
    """A row with the best passage for its question."""
    best = index.best(row["fields"]["question"])
    return {**row, "fields": {**row["fields"], "context": passages[best[0]] if best else ""}}


Rows = list[tuple[str, Example]]


def examples(name: str, path: Path) -> tuple[Task, Rows, Rows]:
    """A prepared task with its training and test rows, each (id, Example); either may be empty."""
    task = load(name)
    train, test = _splits_of(path, task.train, task.test)
    return task, train, test


def tested(name: str, path: Path) -> tuple[Task, Rows, Rows]:
    """A prepared task with the rows that few-shot examples are sampled from, possibly none, and its test rows."""
    task = load(name)
    shown, test = _splits_of(path, task.demonstrations or task.train, task.test)
    return task, shown, test


def _splits_of(path: Path, *splits: str | None) -> list[Rows]:
    """The rows of some splits of a prepared task."""
    from workflow.storage import tables

    tables.check_origin(path)
    rows = tables.rows(path)
    return [[(row["id"], example_of(row)) for row in rows if row["split"] == split] for split in splits]
