"""Tasks of a study's own: declared in its config or as modules in its folder, from any file of rows; mistakes are one line."""

from __future__ import annotations

import copy
import csv
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import running
import yaml

from workflow import registry, task
from workflow.data import declared, notes, prompts
from workflow.errors import StudyError
from workflow.evaluation import metric_names
from workflow.planning import config_checks
from workflow.storage import content_hashes, tables

# The names of all that a row may hold: text, a number as a label, options in a struct, a list of answers.
ROWS: list[dict[str, Any]] = [
    {
        "uid": "a",
        "text": "A fine day.",
        "label": "pos",
        "meta": {"title": "Weather", "tags": ["sky", "sun"]},
        "score": 4,
        "source": "the web",
    },
    {
        "uid": "b",
        "text": "It rained {twice}.",
        "label": "neg",
        "meta": {"title": "Rain", "tags": ["wet"]},
        "score": 1,
        "source": "the press",
    },
]
LABELLED = {
    "method": "label",
    "path": "rows",
    "test": "test",
    "key": "uid",
    "templates": {"default": "{meta.title}: {text} {{}} It is "},
    "answer": "label",
    "labels": {"pos": "positive", "neg": "negative"},
}


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a study as the working directory; afterwards no task is declared."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registry.declare({})


def written(rows: list[dict[str, Any]], name: str = "rows/test.jsonl") -> Path:
    """A file of rows: JSON Lines, Parquet or CSV by its name."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def loaded(block: Mapping[str, Any], name: str = "mine") -> task.Task:
    """The task that a block declares."""
    registry.declare({"tasks": {name: block}})
    return task.load(name)


def prepared(block: Mapping[str, Any], data_root: str | None = None) -> list[dict[str, Any]]:
    """The prepared rows of the task that a block declares."""
    loaded(block)
    return list(task.prepared("mine", data_root))


@pytest.mark.parametrize("file", ["rows/test.jsonl", "rows/test.parquet", "rows/test-00000-of-00001.parquet"])
def test_label_words_templates_and_nested_fields_are_read_as_declared(file: str) -> None:
    written(ROWS, file)
    rows = prepared(LABELLED)
    assert [(row["id"], row["answer"], row["gold"]) for row in rows] == [
        ("test/a", "positive", 0),
        ("test/b", "negative", 1),
    ]
    found = task.load("mine")
    texts = [prompts.prompt(found, row["fields"], "default") for row in rows]
    assert texts == ["Weather: A fine day. {} It is", "Rain: It rained {twice}. {} It is"]
    assert (found.kind, found.labels, task.method("mine")) == ("classification", ("positive", "negative"), "label")


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({0: "no", 1: "yes"}, (1, 0)),
        ({0: "no", 1: "yes"}, ("1", "0")),
        ({0: "no", 1: "yes"}, (1.0, 0.0)),
        ({True: "yes", False: "no"}, (True, False)),
        ({True: "yes", False: "no"}, ("True", "false")),
        ({True: "yes", False: "no"}, ("yes", "no")),  # a key `yes` that YAML has read as true
        ({0.5: "yes", None: "no"}, (0.5, None)),
        ({"b": "yes", "a": "no", "c": "no"}, ("b", "c")),
        (["yes", "no"], ("yes", "no")),
    ],
    ids=repr,
)
def test_values_of_any_type_are_mapped_to_label_words(labels: Any, values: tuple[Any, Any]) -> None:
    written([{"text": "One.", "label": value} for value in values])
    block = {**LABELLED, "labels": labels, "templates": {"default": "{text} "}}
    del block["key"]
    assert [row["answer"] for row in prepared(block)] == ["yes", "no"]


@pytest.mark.parametrize(
    ("labels", "value"), [({0: "no", 1: "yes"}, True), ({1: "no", 2: "yes"}, -1), ({True: "a", False: "b"}, 1)]
)
def test_a_value_that_only_looks_like_a_label_is_none(labels: Any, value: Any) -> None:
    written([{"text": "One.", "label": value}])
    block = {key: entry for key, entry in LABELLED.items() if key != "key"} | {"templates": {"default": "{text} "}}
    with pytest.raises(StudyError, match=r"rows/test.jsonl, row 1: field 'label': found .*, expected one of "):
        prepared({**block, "labels": labels})


CHOICES = {"kind": "choice", "path": "rows", "test": "test", "answer": "answer"}


@pytest.mark.parametrize(
    ("block", "row", "choices", "gold"),
    [
        ({"choices": "options"}, {"options": ["x", "y"], "answer": 1}, ["x", "y"], 1),
        ({"choices": "options"}, {"options": ["x", "y"], "answer": "y"}, ["x", "y"], 1),
        (
            {"choices": "options.text", "keys": "options.label"},
            {"options": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answer": "C"},
            ["x", "y", "z"],
            2,
        ),
        ({"choices": ["first", "second"], "keys": [1, 2]}, {"first": "x", "second": "y", "answer": "2"}, ["x", "y"], 1),
        ({"choices": "options", "keys": ["A", "B", "C", "D"]}, {"options": ["x", "y"], "answer": "A"}, ["x", "y"], 0),
        ({"choices": ["answer", "wrong"]}, {"answer": "y", "wrong": "x"}, ["x", "y"], 1),  # sorted
    ],
)
def test_the_right_choice_is_found(block: Any, row: Any, choices: list[str], gold: int) -> None:
    written([{"question": "Which?", **row}])
    [found] = prepared({**CHOICES, **block})
    assert (found["choices"], found["gold"], found["answer"]) == (choices, gold, choices[gold])


def test_text_and_short_answers_are_read() -> None:
    written([{"article": "Long.", "note": {"gist": "Short."}, "all": [" Bo ", "", "Bob", "Bo"], "extra": None}])
    block = {"kind": "summary", "path": "rows", "test": "test", "fields": {"document": "article"}}
    [text] = prepared({**block, "answer": "note.gist"})
    assert (text["fields"], text["answer"], text["choices"]) == ({"document": "Long."}, "Short.", [])
    block = {"method": "answer", "path": "rows", "test": "test", "templates": {"default": "{article}{extra} "}}
    [short] = prepared({**block, "answer": "all", "optional": ["extra"]})
    assert (short["fields"], short["choices"]) == ({"article": "Long.", "extra": ""}, ["Bo", "Bob"])
    assert prompts.stops(task.load("mine"), "default")[-1] == "\n"


def test_conversations_are_read() -> None:
    said = [{"role": "user", "content": " Hi. "}, {"role": "assistant", "content": "Hello."}]
    written([{"talk": said}], "rows/train.jsonl")
    [row] = prepared({"kind": "messages", "path": "rows", "train": "train", "turns": "talk"})
    assert [tuple(turn.values()) for turn in row["turns"]] == [("user", "Hi."), ("assistant", "Hello.")]


def test_csv_files_are_read_and_a_column_goes_before_what_its_name_leads_to() -> None:
    written([{"a.b": "One.", "label": "1"}, {"a.b": "Two, three.", "label": "0"}], "rows/test.csv")
    block = {**LABELLED, "labels": {0: "no", 1: "yes"}, "templates": {"default": "{a.b} "}}
    del block["key"]
    assert [(row["fields"], row["answer"]) for row in prepared(block)] == [
        ({"a_b": "One."}, "yes"),
        ({"a_b": "Two, three."}, "no"),
    ]


def test_demonstrations_have_a_split_of_their_own(study: Path) -> None:
    for split in ("train", "dev", "test"):
        written([{**row, "uid": f"{split}{row['uid']}"} for row in ROWS], f"rows/{split}.jsonl")
    rows = prepared({**LABELLED, "train": "train", "demonstrations": "dev"})
    tables.write(rows, tables.EXAMPLES, study / "mine.parquet")
    _, shown, test = task.tested("mine", study / "mine.parquet")
    _, train, _ = task.examples("mine", study / "mine.parquet")
    assert [row for row, _ in shown] == ["dev/deva", "dev/devb"]
    assert [row for row, _ in train] == ["train/traina", "train/trainb"] and len(test) == 2


def test_rows_without_a_path_are_in_data_root_and_parquet_is_read_there_for_every_task() -> None:
    written(ROWS, "data/mine/test.parquet")
    block = {key: value for key, value in LABELLED.items() if key != "path"}
    assert len(prepared(block, "data")) == 2
    with pytest.raises(
        StudyError, match=r"config\.yaml: tasks/mine: found neither `hub` nor `path`, nor `data_root` in the config"
    ):
        prepared(block)
    row = {"premise": "A cat.", "hypothesis": "A dog.", "label": 2, "idx": 1}
    for split in ("train", "validation"):
        written([row], f"data/mnli/{split}.parquet")
    assert [found["answer"] for found in task.prepared("mnli", "data")] == ["contradiction"] * 2


def test_files_that_could_each_be_the_split_and_shards_that_lack_some_are_refused() -> None:
    written(ROWS, "rows/test.jsonl")
    written(ROWS, "rows/test.parquet")
    with pytest.raises(
        StudyError, match=r"rows: split 'test' of task 'mine' appears more than once \(test.jsonl, test.parq"
    ):
        prepared(LABELLED)
    assert len(prepared({**LABELLED, "files": {"test": "test.parquet"}})) == 2
    written(ROWS, "other/test-00000-of-00003.parquet")
    with pytest.raises(StudyError, match="other: found 1 of the 3 files of split 'test'; expected all"):
        prepared({**LABELLED, "path": "other"})
    Path("rows/test.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(StudyError, match=r"rows/test\.parquet: not readable Parquet: "):
        prepared({**LABELLED, "files": {"test": "test.parquet"}})


# Rows that do not fit: (changes of the block, the row, what the line says after file and row).
MISFITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"label": "neutral"}, "field 'label': found 'neutral', expected one of 'pos', 'neg'"),
    ({}, {"text": " "}, "field 'text': found ' ', expected text that is not blank, or a number"),
    ({}, {"text": ["a"]}, "field 'text': found ['a'], expected text that is not blank, or a number"),
    ({}, {"meta": {}}, "field 'meta.title': found None, expected a value named 'title'; the row has "),
    ({}, {"meta": "x"}, "field 'meta.title': found 'x', expected a value named 'title'"),
    ({}, {"uid": None}, "field 'uid': found None, expected text or a whole number that identifies the row"),
    (
        {"templates": {"default": "{tags[1]} "}},
        {"tags": ["a"]},
        "field 'tags[1]': found ['a'], expected a list with an entry [1]",
    ),
    (
        {"answer": "lable"},
        {},
        "field 'lable': found None, expected a value named 'lable'; the row has uid, text, label",
    ),
]


@pytest.mark.parametrize(("changes", "row", "message"), MISFITS)
def test_a_row_that_does_not_fit_is_named(changes: Any, row: Any, message: str) -> None:
    written([ROWS[0], {**ROWS[1], **row}] if not changes else [{**ROWS[0], **row}])
    with pytest.raises(StudyError) as caught:
        prepared({**LABELLED, **changes})
    assert str(caught.value).startswith(f"rows/test.jsonl, row {1 if changes else 2}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": ["x", "y"], "answer": 2}, "field 'answer': found 2, expected the index of a choice, 0 to 1"),
        (
            {"options": ["x", "y"], "answer": True},
            "field 'answer': found True, expected the index of a choice, or one of 'x', 'y'",
        ),
        (
            {"options": ["x", "x"], "answer": "x"},
            "field 'answer': found 'x', expected the index of a choice, or one of 'x', 'x'",
        ),
        ({"options": ["x"], "answer": 0}, "field 'options': found ['x'], expected a list of at least two choices"),
        (
            {"options": ["x", None], "answer": 0},
            "field 'options[1]': found None, expected text that is not blank, or a number",
        ),
    ],
)
def test_choices_that_do_not_fit_are_named(row: Any, message: str) -> None:
    written([{"question": "Which?", **row}])
    with pytest.raises(StudyError) as caught:
        prepared({**CHOICES, "choices": "options"})
    assert str(caught.value) == f"rows/test.jsonl, row 1: {message}"


def test_a_change_of_how_rows_are_read_changes_the_fingerprint_and_other_keys_do_not() -> None:
    first = declared.fingerprint(loaded(LABELLED))
    for same in (
        {"licence": "MIT"},
        {"stops": ["."]},
        {"metrics": ["macro_f1"]},
        {"templates": {"default": "{meta.title}! {text}"}},
    ):
        assert declared.fingerprint(loaded({**LABELLED, **same})) == first
    for other in ({"labels": {"pos": "positive", "neg": "bad"}}, {"answer": "score"}, {"test": "dev"}, {"key": "text"}):
        assert declared.fingerprint(loaded({**LABELLED, **other})) != first
    one = prompts.evaluated(loaded(LABELLED), "default", "sound")
    assert prompts.evaluated(loaded({**LABELLED, "stops": ["."]}), "default", "sound") != one


def test_columns_and_fields_that_no_prompt_shows_are_noted() -> None:
    written(ROWS)
    rows = prepared(LABELLED)
    assert list(notes.of("mine", rows, None, None)) == ["columns of text that neither prompt nor answer reads: source"]
    blocks = {**LABELLED, "templates": {"default": "{meta.title} {text} ", "io": "{text} "}}
    rows = prepared(blocks)
    assert next(notes.of("mine", rows, None, None)) == (
        "templates in format io leave out what every row has: meta_title"
    )


def test_metrics_that_a_task_names_are_kept_and_the_first_is_followed() -> None:
    loaded({**LABELLED, "metrics": ["macro_f1", "accuracy"]})
    names = ["accuracy", "accuracy_calibrated", "chance", "macro_f1", "majority"]
    scores = [
        {"test": test, "metric": name, "primary": name == "accuracy"} for test in ("mine", "rte") for name in names
    ]
    items = [{"test": "mine", "metric": name, "value": 1.0} for name in ("accuracy", "accuracy_calibrated", "chance")]
    kept, rows = metric_names.named(scores, pa.Table.from_pylist(items))
    assert [row["metric"] for row in kept if row["test"] == "mine"] == ["accuracy", "chance", "macro_f1", "majority"]
    assert [row["metric"] for row in kept if row["primary"]] == ["macro_f1", "accuracy"]
    assert [row["metric"] for row in kept if row["test"] == "rte"] == names
    assert rows["metric"].to_pylist() == ["accuracy", "chance"]


def test_declared_tasks_go_to_other_processes_as_yaml_whatever_the_config_was_read_from() -> None:
    read = OrderedDict(tasks=OrderedDict(mine=OrderedDict(LABELLED, labels=OrderedDict({0: "no", 1: "yes"}))))
    registry.declare(read)
    here = task.load("mine")
    registry.declare({"tasks": yaml.safe_load(yaml.safe_dump(registry.tasks.blocks))})
    assert task.load("mine") == here and here.labels == ("no", "yes")


# --- mistakes in a block, each one line -------------------------------------------------------------------------------------

GONE = object()
# What is wrong: (changes of the block, what the line says after `config.yaml: tasks/mine`).
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"lables": []}, ": unknown key 'lables'; allowed: answer, choices, "),
    "unknown kind": ({"method": GONE, "kind": "nli"}, "/kind: 'nli' is not allowed; allowed: inference, paraphrase, "),
    "kind and method": ({"kind": "inference"}, "/kind: found both `kind` and `method`, expected one of"),
    "neither kind nor method": ({"method": GONE}, "/kind: found none, expected one of `kind` and `method`"),
    "no labels": ({"labels": GONE}, "/labels: missing; method 'label' needs answer, labels"),
    "no answer": ({"answer": GONE}, "/answer: missing; method 'label' needs answer, labels"),
    "one label word": ({"labels": {0: "a", 1: "a"}}, "/labels: found ('a',), expected two label words or more"),
    "one label": ({"labels": ["a"]}, "/labels: ['a'] is not allowed; allowed: at least 2 entries"),
    "word that YAML reads as false": (
        {"labels": {0: False, 1: True}},
        "/labels/0: False is not allowed; allowed: text",
    ),
    "value twice": ({"labels": {0: "a", "0": "b"}}, "/labels: '0' appears more than once; allowed: each value once"),
    "labels of a list that is a number": (
        {"labels": 3},
        "/labels: 3 is not allowed; allowed: a list or keys with values",
    ),
    "choices of label words": (
        {"choices": "options"},
        "/choices: is not allowed for method 'label'; allowed: answer, labels",
    ),
    "path and hub": ({"hub": "someone/mine"}, "/hub: found together with `path`, expected one of them"),
    "subset without hub": ({"subset": "en"}, "/subset: found without `hub`, expected both or none"),
    "path that leaves the folder": (
        {"path": "rows/../../mine"},
        "/path: 'rows/../../mine' points outside the study's folder; allowed: a ",
    ),
    "file that leaves the folder": (
        {"files": {"test": "../test"}},
        "/files/test: '../test' is not allowed; allowed: names that",
    ),
    "split with a slash": ({"test": "../test"}, "/test: '../test' is not allowed; allowed: names that match"),
    "no such folder": (
        {"path": "nowhere"},
        "nowhere/test.jsonl: missing; expected the rows of task 'mine', one JSON object a line",
    ),
    "no split": ({"test": GONE}, "/test: found no split, expected `test` or `train`"),
    "tested on what is tuned on": (
        {"train": "test"},
        "/test: 'test' is the split of `train` as well; allowed: another split",
    ),
    "demonstrations of the test": (
        {"demonstrations": "test"},
        "/demonstrations: 'test' is the split of `test` as well; allowed: an",
    ),
    "file of a split that is not read": ({"files": {"dev": "dev"}}, "/files: split 'dev' is not read; allowed: test"),
    "no templates": ({"templates": GONE}, "/templates: found none, expected one for each format in use"),
    "unknown format": (
        {"templates": {"chatty": "{text}"}},
        "/templates: 'chatty' is not allowed; allowed: default, io, instruct, chat; did you mean 'chat'?",
    ),
    "brace that stays open": (
        {"templates": {"default": "{text"}},
        "/templates/default: '{text' is not a template (expected '}'",
    ),
    "template without fields": (
        {"templates": {"default": "Text:"}},
        "/templates/default: 'Text:' names no field; allowed: text ",
    ),
    "template with a number": (
        {"templates": {"default": "{0}"}},
        "/templates/default: {0} names no field; allowed: a column, ",
    ),
    "template with nothing": (
        {"templates": {"default": "{}"}},
        "/templates/default: {} names no field; allowed: a column, ",
    ),
    "template with code": (
        {"templates": {"default": "{text!r:>{meta}}"}},
        "/templates/default: {text} has a conversion or format specification; allowed: ",
    ),
    "names that become one": (
        {"templates": {"default": "{a.b} {a_b}"}},
        "/templates/default: {a.b} and {a_b} become the same field name; allowed: ",
    ),
    "field that no template uses": (
        {"fields": {"passage": "text"}},
        "/fields: no template uses 'passage'; allowed: meta_title, ",
    ),
    "optional field that is none": (
        {"optional": ["passage"]},
        "/optional: no template uses 'passage'; allowed: meta_title, text",
    ),
    "place that leads nowhere": (
        {"answer": "label..x"},
        "/answer: 'label..x' is not a path into a row; allowed: a column, such as ",
    ),
    "metric of another method": (
        {"metrics": ["rouge_l"]},
        "/metrics: 'rouge_l' is not known; allowed: accuracy, accuracy_calibrated",
    ),
    "unknown domain": ({"domain": "nowhere"}, "/domain: 'nowhere' is not known; allowed: the name of a task"),
    "hub name without owner": (
        {"path": GONE, "hub": "mine"},
        "/hub: 'mine' is not allowed; allowed: names that match ",
    ),
    "block that is a list": ({"": []}, ": [] is not allowed; allowed: keys with values"),
}


def lines(config: Mapping[str, Any]) -> list[str]:
    """What a run with this config says before its first job."""
    with pytest.raises(StudyError) as caught:
        config_checks.read(config)
    return str(caught.value).splitlines()


def with_task(block: Any, name: str = "mine", **suite: Any) -> dict[str, Any]:
    """The smoke study's config with a task of its own that a suite tests."""
    config = copy.deepcopy(running.SMOKE) | {"tasks": {name: block}}
    config["suites"]["own"] = {"tests": [name], **suite}
    return config


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_block_is_one_line(case: str) -> None:
    written(ROWS)
    changes, message = MISTAKES[case]
    block = {key: value for key, value in {**LABELLED, **changes}.items() if value is not GONE}
    said = lines(with_task(changes.get("", block)))
    expected = message if message.startswith("nowhere") else f"config.yaml: tasks/mine{message}"
    assert len(said) == 1 and said[0].startswith(expected), said


def test_a_sound_block_is_taken_and_a_format_without_a_template_is_not() -> None:
    written(ROWS)
    study = config_checks.read(with_task(LABELLED))
    assert study["tasks"]["mine"]["labels"] == LABELLED["labels"]
    assert lines(with_task(LABELLED, formats=["default", "io"])) == [
        "config.yaml: suites/own/tests: 'mine' has no template in format 'io' that fits its fields; allowed: default"
    ]


def test_names_that_are_there_already_are_refused() -> None:
    written(ROWS)
    assert lines(with_task(LABELLED, "mnli"))[0] == (
        "config.yaml: tasks/mnli: Tunecast already has a task of that name; choose another name"
    )
    path = module("rte", "TASK = None\n")
    assert f"{path}: Tunecast already has a task 'rte'; rename the file" in lines(with_task({}))
    path.rename("tasks/mine.py")
    assert "config.yaml: tasks/mine: tasks/mine.py already has a task of that name; choose another name" in lines(
        with_task(LABELLED)
    )


def test_all_mistakes_of_a_block_are_said_at_once() -> None:
    written(ROWS)
    said = lines(with_task({**LABELLED, "answer": "a..b", "hub": "a/b", "choices": "c", "domain": "d"}))
    assert len(said) == 4 and all(line.startswith("config.yaml: tasks/mine/") for line in said)


# --- modules in the study's folder -----------------------------------------------------------------------------------------

MODULE = """
from workflow.task import Example, Task
from workflow.tasks import _{name}_words


def read(row):
    return Example({{"document": row["text"]}}, _{name}_words.short(row["text"]))


TASK = Task(kind="summary", schema={{"text": str}}, test="test", read=read)
"""


def module(name: str, text: str) -> Path:
    """A module in the study's folder of tasks."""
    path = Path("tasks") / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_module_of_the_study_is_a_task_whose_hash_covers_its_helpers() -> None:
    helper = module("_local_a_words", "def short(text):\n    return text[:5]\n")
    module("local_a", MODULE.format(name="local_a"))
    written(ROWS, "data/local_a/test.csv")
    assert "local_a" in task.names() and "_local_a_words" not in task.names()
    assert [row["answer"] for row in task.prepared("local_a", "data")] == ["A fin", "It ra"]
    paths = task.module_paths("local_a")
    assert [path.name for path in paths] == ["_local_a_words.py", "local_a.py"]
    assert paths[1] == Path("tasks/local_a.py").resolve()
    first = content_hashes.of_code(*(path.with_suffix("") for path in paths))
    helper.write_text("def short(text):\n    return text[:50]\n", encoding="utf-8")
    assert content_hashes.of_code(*(path.with_suffix("") for path in paths)) != first


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("local_b", "TASK = (", "tasks/local_b.py, line 1: SyntaxError: '(' was never closed"),
        ("local_c", "\nimport nowhere\n", "tasks/local_c.py, line 2: ModuleNotFoundError: No module named 'nowhere'"),
        ("local_d", "task = 1\n", "tasks/local_d.py: found no TASK; expected a line `TASK = Task(...)`"),
        (
            "local_e",
            "from workflow.task import Task\nTASK = Task(kind='inference', schema={}, read=dict, test='test')\n",
            "tasks/local_e.py: labels: found (), expected two label words or more, which kind 'inference' needs",
        ),
        (
            "local_f",
            "from workflow.task import Task\nTASK = Task(kind='summery', schema={}, read=dict, test='test')\n",
            "tasks/local_f.py: kind: 'summery' is not known; allowed: inference, paraphrase, ",
        ),
        (
            "local_g",
            "from workflow.task import Task\nTASK = Task(kind='summary', read=dict, test='test')\n",
            "tasks/local_g.py, line 2: TypeError: Task.__init__() missing 1 required positional argument: 'schema'",
        ),
    ],
)
def test_a_module_that_is_no_task_is_one_line(name: str, text: str, message: str) -> None:
    module(name, text)
    with pytest.raises(StudyError) as caught:
        task.load(name)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_what_a_module_reads_wrongly_is_said_when_rows_are_prepared() -> None:
    module(
        "local_h",
        "from workflow.task import Example, Task\n"
        "TASK = Task(kind='choice', schema={}, read=lambda row: Example({}, 'x', ('x', 'y'), 2), test='test')\n",
    )
    written(ROWS, "data/local_h/test.jsonl")
    with pytest.raises(
        StudyError, match="row 1: field 'gold': found 2, expected the place of the answer among 2 choices, from 0"
    ):
        list(task.prepared("local_h", "data"))
