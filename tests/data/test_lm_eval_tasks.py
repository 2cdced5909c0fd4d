"""Task files of lm-evaluation-harness in a study: found, expanded, taken; what is not supported is one line and never run."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import running
import yaml

from workflow import registry, task
from workflow.data import lm_eval_rows, lm_eval_tasks, lm_eval_yaml, notes, prompts
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.storage import tables
from workflow.study import grid
from workflow.task import Example

ROWS = [{"goal": f"Row {number}?", "sols": ["yes", "no"], "label": number % 2} for number in range(6)]
SOUND: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "someone/mine",
    "training_split": "train",
    "validation_split": "validation",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{goal}}\nAnswer:",
    "doc_to_choice": "sols",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
GONE = object()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a study as the working directory, with rows in `data_root`; afterwards no task is declared."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        path = tmp_path / f"data/mine/{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    yield tmp_path
    registry.declare({})


def put(content: Any, name: str = "files/mine.yaml") -> None:
    """A task file."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))


def config(tests: list[str] | None = None, suite: dict[str, Any] | None = None, **block: Any) -> dict[str, Any]:
    """The smoke study's config with tasks of the harness that a suite tests."""
    found = copy.deepcopy(running.SMOKE) | {"data_root": "data"}
    found["lm_eval"] = {"include_path": "files", "tasks": ["mine"], **block}
    found["suites"]["harness"] = {"tests": tests or ["mine"], "formats": ["lm_eval"], **(suite or {})}
    return found


def lines(study: dict[str, Any]) -> list[str]:
    """What a run with this config says before its first job."""
    with pytest.raises(StudyError) as caught:
        config_checks.read(study)
    return str(caught.value).splitlines()


def test_a_listed_task_is_a_test_of_a_suite_with_its_rows_in_data_root() -> None:
    put(SOUND)
    study = config_checks.read(config())
    read = task.load("mine")
    assert study["suites"]["harness"]["tests"] == ["mine"]
    assert (read.hub, read.train, read.test, read.metrics) == ("someone/mine", "train", "validation", ("acc",))
    rows = list(task.prepared("mine", "data"))
    assert prompts.formats(read) == ["lm_eval"]
    assert [prompts.prompt(read, row["fields"], "lm_eval") for row in rows[:2]] == [
        "Question: Row 0?\nAnswer:",
        "Question: Row 1?\nAnswer:",
    ]
    assert [(row["answer"], row["gold"]) for row in rows[:2]] == [("yes", 0), ("no", 1)]
    assert prompts.answer(read, task.example_of(rows[1])) == " no"
    assert list(notes.of("mine", rows, "data", None)) == []


def test_a_task_may_replace_one_of_tunecast_or_stand_beside_it() -> None:
    put({**SOUND, "task": "sciq"})
    Path("data/mine").rename("data/sciq")
    config_checks.read(config(["sciq"], tasks=["sciq"]))
    assert task.load("sciq").lm_eval
    config_checks.read(config(["harness_sciq"], tasks=["sciq"], prefix="harness_"))
    assert (task.load("sciq").lm_eval, task.load("harness_sciq").folder) == (None, "sciq")


def test_groups_and_tags_stand_for_their_tasks_and_change_them() -> None:
    put({key: value for key, value in SOUND.items() if key != "task"}, "files/deep/_shared_yaml")
    put({"include": "_shared_yaml", "task": "one", "tag": "odd"}, "files/deep/one.yaml")
    put('"include": "_shared_yaml"\n"task": "three"\n"tag":\n- "odd"\n- other\n', "files/deep/three.yaml")
    put({"include": "deep/_shared_yaml", "task": "two", "description": "Two.\n"}, "files/two.yaml")
    put({"group": "inner", "task": ["odd"], "num_fewshot": 2}, "files/inner.yaml")
    members = ["inner", {"task": "two", "num_fewshot": 1}, {"group": "local", "task": ["two"], "num_fewshot": 1}]
    put({"group": "outer", "task": members, "aggregate_metric_list": [{"metric": "acc"}]}, "files/outer.yaml")
    files = lm_eval_yaml.TaskFiles(Path("files"))
    found, groups, mistakes = lm_eval_yaml.found(files, ["outer", "odd", "two"])
    assert mistakes == [
        "files/deep/one.yaml: task 'one' appears twice with different settings; list it, or one of the groups, once",
        "files/deep/three.yaml: task 'three' appears twice with different settings; list it, or one of the groups, once",
        "files/two.yaml: task 'two' appears twice with different settings; list it, or one of the groups, once",
    ]
    assert {name: entry["config"].get("num_fewshot") for name, entry in found.items()} == {
        "one": 2,
        "three": 2,
        "two": 1,
    }
    assert groups == {"outer": ["one", "three", "two"], "odd": ["one", "three"]}
    for name in ("one", "two", "three"):
        Path(f"data/{name}").symlink_to("mine")
    study = config_checks.read(config(["outer"], tasks=["outer"]))
    assert study["suites"]["harness"]["tests"] == ["one", "three", "two"]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "code for rows": ({"process_docs": "!function utils.process"}, "process_docs: '!function utils.process' is code, which is"),
    "code for a text": ({"doc_to_text": "!function utils.text"}, "doc_to_text: '!function utils.text' is code, which is not"),
    "code inside a list": ({"metric_list": [{"metric": "!function utils.mean"}]}, "metric_list/0/metric: '!function utils.mean'"),
    "code of Python": ({"metadata": "!!python/object/apply:os.system [\"touch hacked\"]"}, "metadata: 'tag:yaml.org,2002:python"),
    "class of a task": ({"class": "Mine"}, "class: is not supported; allowed: task, dataset_path,"),
    "another output": ({"output_type": "loglikelihood_rolling"}, "output_type: 'loglikelihood_rolling' is not supported"),
    "no text": ({"doc_to_text": GONE}, "doc_to_text: missing; multiple_choice needs doc_to_text, doc_to_target, doc_to_choice"),
    "template that is none": ({"doc_to_text": "{{goal"}, "doc_to_text: not a valid Jinja template (unexpected end of template"),
    "sampler": ({"fewshot_config": {"sampler": "balanced"}}, "fewshot_config/sampler: 'balanced' is not supported; allowed"),
    "fewshot rows by index": ({"fewshot_config": {"fewshot_indices": [1]}}, "fewshot_config/fewshot_indices: is not supported"),
    "metric": ({"metric_list": [{"metric": "mcc"}]}, "metric_list: 'mcc' is not supported for multiple_choice; allowed: acc,"),
    "filter": (
        {"output_type": "generate_until", "metric_list": GONE,
         "filter_list": [{"name": "a", "filter": [{"function": "vote"}, {"function": "take_first"}]}]},
        "filter_list/a: filter 'vote' is not supported for generate_until; allowed: take_first,",
    ),
    "sampled text": (
        {"output_type": "generate_until", "metric_list": GONE, "generation_kwargs": {"do_sample": True}},
        "generation_kwargs: samples text (do_sample, temperature); expected greedy generation: do_sample: false",
    ),
    "expression": (
        {"output_type": "generate_until", "metric_list": [{"metric": "exact_match", "regexes_to_ignore": ["("]}]},
        "metric_list/exact_match/regexes_to_ignore: '(' is not a regular expression",
    ),
    "files outside": (
        {"dataset_path": "json", "dataset_kwargs": {"data_files": {"train": "a.jsonl", "validation": "../b.jsonl"}}},
        "dataset_kwargs/data_files: '../b.jsonl' is outside the study's folder; allowed: files in it, in include_path or",
    ),
    "rows from a script": ({"dataset_path": "./script.py"}, "dataset_path: found './script.py', expected a dataset of the hub"),
    "several runs of a row": ({"repeats": 4}, "repeats: found 4, expected 1"),
    "no test": ({"validation_split": GONE}, "test_split: missing; expected `test_split` or `validation_split`"),
    "number of shots": ({"num_fewshot": "five"}, "num_fewshot: found 'five', expected a whole number from 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_not_supported_is_named_in_one_line_and_never_run(case: str) -> None:
    changes, message = MISTAKES[case]
    content = {key: value for key, value in {**SOUND, **changes}.items() if value is not GONE}
    if "code" in case:  # as it stands in a file
        put("".join(line.replace("'!", "!").replace("]''", "]").replace("'\n", "\n") if "'!" in line else line
                    for line in yaml.safe_dump(content, sort_keys=False, width=1000).splitlines(keepends=True)))  # fmt: skip
        Path("files/utils.py").write_text("open('hacked', 'w')\n")
    else:
        put(content)
    (said,) = lines(config())
    assert said.startswith(f"files/mine.yaml: {message}"), said
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine.yaml": "task: mine\n  a: [\n"}, "files/mine.yaml, line 2: not valid YAML: "),
        (
            {"mine.yaml": {"task": "mine", "include": "../secret.yaml"}},
            "files/mine.yaml: include: '../secret.yaml' is outside",
        ),
        (
            {"mine.yaml": {"task": "mine", "include": "/etc/passwd"}},
            "files/mine.yaml: include: '/etc/passwd' is outside the",
        ),
        (
            {"mine.yaml": {"task": "mine", "include": "no.yaml"}},
            "files/no.yaml: missing; expected a task file that another",
        ),
        (
            {"mine.yaml": {"task": "mine", "include": "mine.yaml"}},
            "files/mine.yaml: includes itself; expected files that do",
        ),
        (
            {"mine.yaml": {"group": "mine", "task": ["mine"]}},
            "config.yaml: lm_eval/tasks: group 'mine' contains itself;",
        ),
        (
            {"mine.yaml": {"group": "mine", "task": ["other"]}},
            "config.yaml: lm_eval/tasks: 'other' is not known; allowed: a",
        ),
        (
            {"mine.yaml": {"group": "mine", "task": "mine"}},
            "files/mine.yaml: task: found 'mine', expected a list of tasks",
        ),
        (
            {"other.yaml": {**SOUND, "task": "Mine!"}},
            "config.yaml: lm_eval/tasks: 'mine' is not known; allowed: a task,",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(files: dict[str, Any], message: str) -> None:
    Path("secret.yaml").write_text("doc_to_text: secret\n")
    for name, content in files.items():
        put(content, f"files/{name}")
    said = lines(config())
    assert said[0].startswith(message) and len([line for line in said if line.startswith(message[:20])]) == 1, said


def test_shots_may_be_those_of_each_file() -> None:
    put({**SOUND, "num_fewshot": 3})
    put({**SOUND, "task": "other"}, "files/other.yaml")
    Path("data/other").symlink_to("mine")
    study = config_checks.read(config(["mine", "other"], {"shots": [1, "file"]}, tasks=["mine", "other"]))
    tests = grid.tests(study)
    rows = tests.loc[tests["suite"] == "harness", ["test", "shots"]].itertuples(index=False, name=None)
    assert list(rows) == [("mine", 1), ("mine", 3), ("other", 1), ("other", 0)]
    both = config(["mine", "mini_facts"], {"shots": ["file"], "formats": ["lm_eval"]})
    assert (
        "config.yaml: suites/harness/shots: 'file' is not allowed for 'mini_facts', which no task file defines; "
        in ("\n".join(lines(both)))
    )


def test_suites_and_names_that_do_not_fit_are_told() -> None:
    put({**SOUND, "num_fewshot": 0})
    assert lines(config(suite={"shots": [0, 2]})) == [
        "config.yaml: suites/harness/shots: [0, 2] is not allowed for 'mine', whose file sets num_fewshot: 0; allowed: [0]"
    ]
    assert lines(config(suite={"formats": ["default"]})) == [
        "config.yaml: suites/harness/tests: 'mine' has no template in format 'default' that fits its fields; allowed: lm_eval"
    ]
    assert lines(config(include_path="nowhere"))[0] == (
        "config.yaml: lm_eval/include_path: 'nowhere' is missing; expected a folder"
    )
    own = config() | {"tasks": {"mine": {"kind": "choice", "path": "data/mine", "test": "validation", "answer": "label",
                                         "choices": "sols", "fields": {"question": "goal"}}}}  # fmt: skip
    assert lines(own)[0].startswith(
        "config.yaml: lm_eval/tasks: the study has a task 'mine' of its own; set lm_eval/prefix"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"goal": "A?", "sols": ["yes", "no"], "label": -1},
            "field 'doc_to_target': found -1, expected the place of one choice",
        ),
        (
            {"goal": "A?", "sols": ["yes", "no"], "label": 2},
            "field 'doc_to_target': found 2, expected the place of one choice",
        ),
        (
            {"sols": ["yes", "no"], "label": 0},
            "field 'doc_to_text': found \"UndefinedError: 'goal' is undefined\", expected a",
        ),
        (
            {"goal": "A?", "sols": "yes", "label": 0},
            "field 'doc_to_choice': found 'yes', expected a list of texts that are not",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_one_line(row: dict[str, Any], message: str) -> None:
    put(SOUND)
    Path("data/mine/validation.jsonl").write_text(json.dumps(row) + "\n")
    config_checks.read(config())
    with pytest.raises(StudyError) as caught:
        list(task.prepared("mine", "data"))
    assert str(caught.value).startswith(f"data/mine/validation.jsonl, row 1: {message}")


def test_templates_reach_nothing_but_the_row() -> None:
    for text in ("{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ sols.append('x') }}"):
        with pytest.raises(task.FieldError, match="SecurityError"):
            lm_eval_rows.rendered("doc_to_text", text, {"sols": []})


def test_few_shot_examples_are_drawn_for_row_after_row_with_the_seed_of_the_harness() -> None:
    """By hand: one generator of seed 1234, one more row than needed where the row itself is among those drawn from."""
    rows = [(f"test/{number}", Example({"row": str(number), "solved": str(number)}, "")) for number in range(8)]
    put({**SOUND, "fewshot_split": "validation", "test_split": "validation"})
    config_checks.read(config())
    harness = task.load("mine").lm_eval
    assert harness is not None and harness.excludes
    draw = random.Random(1234)
    expected = [[n for n in draw.sample(range(8), 3) if n != own][:2] for own in range(8)]
    found = lm_eval_tasks.shown_rows(harness, rows, rows, 2)
    assert [[int(example.fields["row"]) for _, example in before] for before in found] == expected
    with pytest.raises(StudyError, match="8 few-shot examples need at least 9 rows to draw from; found 8"):
        lm_eval_tasks.shown_rows(harness, rows, rows, 8)


def test_prepared_rows_fit_the_table(tmp_path: Path) -> None:
    put(SOUND)
    config_checks.read(config())
    tables.write(list(task.prepared("mine", "data")), tables.EXAMPLES, tmp_path / "mine.parquet", task="mine")
    _, shown, test = task.tested("mine", tmp_path / "mine.parquet")
    assert len(shown) == len(test) == len(ROWS)
