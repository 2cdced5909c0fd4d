"""Tasks that a study brings, declared in its config, as a module, or as files of lm-evaluation-harness, in the real Snakefile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running

MODULE = '''
"""Colours of things, with a helper that other tasks could share."""

from workflow.task import Example, Task
from workflow.tasks import _shared


def read(row):
    return Example({"question": _shared.asked(row)}, row["options"][0], tuple(row["options"]), 0)


TASK = Task(kind="choice", schema={"thing": str, "options": [str]}, test="test", read=read)
'''
SHARED = 'def asked(row):\n    return "Which colour is " + row["thing"] + "?"\n'
STUDY = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "data_root": "../data",
    "tasks": {
        "stars": {
            "method": "label",
            "path": "rows",
            "train": "train",
            "test": "test",
            "templates": {"default": "{said.text} It is "},
            "answer": "stars",
            "labels": {1: "bad", 5: "good"},
            "metrics": ["macro_f1"],
        }
    },
    "lm_eval": {"include_path": "files", "tasks": ["quiz"]},
    "recipes": {"full": {"examples": 4, "epochs": 1, "batch": 2, "max_tokens": 64, "learning_rate": 1.0e-3}},
    "models": [
        {"train": ["stars"], "recipes": ["full"]},
        {"train": ["asked"], "recipes": ["full"], "formats": ["lm_eval"]},
    ],
    "suites": {
        "mine": {"tests": {"stars": ["stars"]}},
        "module": {"tests": {"stars": ["colours"]}},
        "harness": {"tests": {"asked": ["quiz"]}, "formats": ["lm_eval"], "shots": [1]},
    },
    "statistics": {"resamples": 100},
}
ASKED = """
task: asked
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{said.text}}\\nA:"
doc_to_choice: [bad, good]
doc_to_target: "{{(stars == 5)|int}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
SUMS = """
task: sums
training_split: train
test_split: test
doc_to_text: "Q: {{said.text}}\\nA:"
doc_to_target: "{{stars}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
filter_list: [{name: digits, filter: [{function: regex, regex_pattern: "[0-9]"}, {function: take_first}]}]
"""
FILES = {"asked.yaml": ASKED, "sums.yaml": SUMS, "quiz.yaml": "group: quiz\ntask: [asked, sums]\n"}
WANTED = ("results/scores.parquet", "results/items.parquet")


@pytest.fixture(scope="module")
def finished(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study after a run; not to be changed."""
    place = running.lay_out(tmp_path_factory.mktemp("tasks") / "place", STUDY)
    shutil.copytree(smoke / "study/resources/pretrained/family=tiny/step=20", place / "steps/step=20")
    said = [
        {"said": {"text": f"It was {'dull' if n % 2 else 'fine'}, {n}."}, "stars": 1 if n % 2 else 5} for n in range(8)
    ]
    things = [{"thing": f"snow {n}", "options": ["white", "black"]} for n in range(4)]
    files = {"study/rows/train": said, "study/rows/test": said[:6], "data/colours/test": things}
    files |= {f"data/{name}/{split}": said[:6] for name in ("asked", "sums") for split in ("train", "test")}
    for name, rows in files.items():
        path = place / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (place / "study/files").mkdir()
    for name, text in FILES.items():
        (place / "study/files" / name).write_text(text, encoding="utf-8")
    (place / "study/tasks").mkdir()
    (place / "study/tasks/colours.py").write_text(MODULE, encoding="utf-8")
    (place / "study/tasks/_shared.py").write_text(SHARED, encoding="utf-8")
    ended = running.run(place, *WANTED)
    assert ended.returncode == 0, ended.stderr
    return place


def test_its_tasks_are_tuned_on_predicted_and_scored(finished: Path) -> None:
    scores = pd.read_parquet(finished / "study" / WANTED[0])
    assert scores.groupby(["train", "test"])["n"].max().to_dict() == {
        ("none", "colours"): 4, ("none", "stars"): 6, ("stars", "colours"): 4, ("stars", "stars"): 6,
        ("none", "asked"): 6, ("none", "sums"): 6, ("asked", "asked"): 6, ("asked", "sums"): 6,
    }  # fmt: skip
    stars = scores[scores["test"] == "stars"]
    assert set(stars["metric"]) == {"macro_f1", "chance", "majority", "most_predicted"}
    assert set(stars.loc[stars["primary"], "metric"]) == {"macro_f1"}
    part = next((finished / "study/results/predictions").rglob("suite=mine/*/part.parquet"))
    rows = pd.read_parquet(part)
    assert set(rows["reference"]) == {"good", "bad"} and list(rows["choices"][0]) == ["bad", "good"]


def block(**changes: Any) -> Callable[[Path], None]:
    """A change of the block that declares the task."""

    def change(place: Path) -> None:
        config = running.configured(place)
        config["tasks"]["stars"] |= changes
        running.configure(place, config)

    return change


def line(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of a file of the study's place."""

    def change(place: Path) -> None:
        text = (place / path).read_text(encoding="utf-8")
        assert old in text
        (place / path).write_text(text.replace(old, new), encoding="utf-8")

    return change


def test_tasks_of_the_harness_have_its_metrics(finished: Path) -> None:
    scores = pd.read_parquet(finished / "study" / WANTED[0])
    own = scores[scores["suite"] == "harness"]
    assert own.groupby("test")["metric"].agg(set).to_dict() == {
        "asked": {"acc", "acc_norm", "chance"},
        "sums": {"exact_match,digits"},
    }
    assert set(own.loc[own["primary"], "metric"]) == {"acc", "exact_match,digits"}
    tuned = next((finished / "study/resources/models").rglob("train=asked/**/*.safetensors"))
    assert "format=lm_eval" in str(tuned)


# Two models, the base and the tuned one, are predicted once for each suite and test.
COSTS: dict[str, tuple[Callable[[Path], None], dict[str, int]]] = {
    "the prompt": (
        block(templates={"default": "{said.text} It was "}),
        {"tune": 1, "predict": 3, "score": 3, "gather": 2},
    ),
    "a label word": (
        block(labels={1: "poor", 5: "good"}),
        {"prepare": 1, "tune": 1, "predict": 3, "score": 3, "gather": 2},
    ),
    "its metrics": (block(metrics=["accuracy"]), {"score": 2, "gather": 2}),
    "its licence": (block(licence="MIT"), {}),
    "rows of the module": (
        line("data/colours/test.jsonl", "snow 1", "coal"),
        {"prepare": 1, "predict": 2, "score": 2, "gather": 2},
    ),
    "a helper": (
        line("study/tasks/_shared.py", "Which colour", "What colour"),
        {"prepare": 1, "predict": 2, "score": 2, "gather": 2},
    ),
    "the prompt of a file of the harness": (
        line("study/files/asked.yaml", "Q: ", "Question: "),
        {"prepare": 1, "tune": 1, "predict": 2, "score": 2, "gather": 2},
    ),
    "how a file of the harness generates": (
        line("study/files/sums.yaml", "max_gen_toks: 4", "max_gen_toks: 3"),
        {"predict": 2, "score": 2, "gather": 2},
    ),
    "metrics of a file of the harness": (
        line("study/files/asked.yaml", "acc_norm", "acc_bytes"),
        {"score": 2, "gather": 2},
    ),
    "a file of the harness that no task reads": (line("study/files/quiz.yaml", "task:", "metadata: {v: 1}\ntask:"), {}),
    "a comment": (line("study/tasks/colours.py", "Colours of things", "Colours of all things"), {}),
}


@pytest.mark.parametrize("case", COSTS)
def test_a_change_of_a_task_runs_its_own_jobs_alone(finished: Path, tmp_path: Path, case: str) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    change, cost = COSTS[case]
    change(place)
    assert running.planned(place, *WANTED) == cost
