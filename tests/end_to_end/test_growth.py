"""The smoke study grows, one change after another, for real: what runs, what stays to the byte, what figures show."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running
from running import SMOKE

from workflow.report import selection
from workflow.report.figures import curves
from workflow.storage import tables

pytestmark = pytest.mark.faults

ROWS = ("results/scores.parquet", "results/histories.parquet")
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$", re.MULTILINE)
DIGEST = """
from dataclasses import replace
from workflow.tasks import mini_summary
TASK = replace(mini_summary.TASK, folder="mini_summary")
"""
WORDS = """

def words(rows: pd.DataFrame) -> Values:
    return rows["output"].str.split().str.len().to_numpy(float)

METRICS["words"] = PerRow(("generate",), words)
"""


def checkpoint_folder(step: int) -> Callable[[Path, dict[str, Any]], None]:
    """A checkpoint dropped into the folder of the local family."""

    def change(place: Path, study: dict[str, Any]) -> None:
        made = place / "study/resources/pretrained/family=tiny" / f"step={step}"
        shutil.copytree(made, place / "steps" / f"step{step}")

    return change


def family(place: Path, study: dict[str, Any]) -> None:
    """A family of a folder with one checkpoint, tuned on facts."""
    checkpoint_folder(10)(place, study)
    for block in study["models"]:
        block["families"] = ["tiny"]
    study["families"]["local"] = {"source": "folder", "path": "../steps"}
    study["models"].append({"train": ["mini_facts"], "recipes": ["lora"], "families": ["local"]})


def seed(place: Path, study: dict[str, Any]) -> None:
    """A third seed."""
    study["models"][0]["seeds"] = [0, 1, 2]


def task(place: Path, study: dict[str, Any]) -> None:
    """A module of a new task, in a suite of its own."""
    (place / "workflow/tasks/mini_digest.py").write_text(DIGEST)
    study["suites"]["again"] = {"tests": {"mini_facts": ["mini_digest"]}, "limit": 4, "new_tokens": 8}


def format_(place: Path, study: dict[str, Any]) -> None:
    """A second format to tune in."""
    study["models"][1]["formats"] = ["default", "io"]


def metric(place: Path, study: dict[str, Any]) -> None:
    """A new metric of generated text."""
    module = place / "workflow/evaluation/metrics.py"
    module.write_text(module.read_text() + WORDS)


# What grows: (how, the jobs that design and README promise). A base is predicted in 5 parts, 16 parts there are at first.
GROWTH: dict[str, tuple[Callable[[Path, dict[str, Any]], None], dict[str, int]]] = {
    "a family": (family, {"fetch": 1, "tune": 1, "predict": 7, "score": 7, "gather": 2}),
    "a checkpoint folder": (checkpoint_folder(20), {"fetch": 1, "tune": 1, "predict": 7, "score": 7, "gather": 2}),
    "a seed": (seed, {"tune": 1, "predict": 2, "score": 2, "gather": 2}),
    # 4 bases and 3 models tuned on facts.
    "a task": (task, {"prepare": 1, "predict": 7, "score": 7, "gather": 1}),
    "a format": (format_, {"tune": 1, "predict": 3, "score": 3, "gather": 2}),
    "a metric": (metric, {"score": 16 + 7 + 7 + 2 + 7 + 3, "gather": 1}),
}


def kept(place: Path, scored: bool) -> dict[str, str]:
    """Hash of every part, prepared task, manifest and weight; scores and rows behind them only where they are to stay."""
    folders = ["results/predictions", "results/histories", "resources/models", "resources/bases", "resources/tasks"]
    folders += ["results/scores", "results/items"] if scored else []
    paths = [path for folder in folders for path in (place / "study" / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def grow(place: Path, change: Callable[[Path, dict[str, Any]], None], *targets: str) -> Counter[str]:
    """Make a change and run the study; the jobs that ran."""
    study = running.configured(place)
    change(place, study)
    running.configure(place, study)
    ended = running.run(place, *targets)
    assert ended.returncode == 0, ended.stderr
    return Counter(JOB.findall(ended.stderr))


def test_a_study_grows(smoke: Path, tmp_path: Path) -> None:
    place = shutil.copytree(smoke, tmp_path / "place")
    (place / "steps").mkdir()
    report = []
    for name, (change, expected) in GROWTH.items():
        scores, before = tables.read(place / "study" / ROWS[0]), kept(place, scored=name != "a metric")
        found = grow(place, change, *ROWS)
        report.append(f"{name}: expected {expected}, ran {dict(found)}")
        assert found == Counter(expected), report
        after = kept(place, scored=name != "a metric")
        assert {path: after[path] for path in before} == before, f"{name}: earlier parts are as they were"
        check_rows(scores, tables.read(place / "study" / ROWS[0]), name)
    print("\n".join(report))


def check_rows(before: pd.DataFrame, after: pd.DataFrame, name: str) -> None:
    """All rows that there were, and others; of a new metric in every generated test alone."""
    keys = [column for column in before if column not in ("value", "error", "low", "high", "n")]
    merged = before.merge(after, on=keys, how="left", suffixes=("", "_after"))
    for column in ("value", "error", "low", "high", "n"):
        assert merged[column].equals(merged[f"{column}_after"]), (name, column)
    assert len(after) > len(before)
    if name == "a metric":
        new = set(after["metric"]) - set(before["metric"])
        assert new == {"words"}


def test_figures_show_what_was_added(smoke: Path, tmp_path: Path) -> None:
    """A family of two steps beside the first: the figure has a panel for it with a point at each."""
    place = shutil.copytree(smoke, tmp_path / "place")
    (place / "steps").mkdir()
    study = running.configured(place)
    family(place, study)
    checkpoint_folder(20)(place, study)
    shutil.copy2(place / "workflow/report/figures/curves.py", place / "workflow/report/figures/arcs.py")
    study["figures"] = [*SMOKE["figures"], "arcs"]
    running.configure(place, study)
    old = drawn(smoke)
    ended = running.run(place)
    assert ended.returncode == 0, ended.stderr
    assert (place / "study/results/figures/arcs.pdf").read_bytes().startswith(b"%PDF")
    new = drawn(place)
    assert len(new) > len(old)
    assert {10.0, 20.0} <= {point for panel in new[len(old) :] + new for point in panel}
    assert not any(10.0 in panel for panel in old)


def drawn(place: Path) -> list[set[float]]:
    """The steps at which each panel of the curves has points."""
    scores, analysis = (tables.read(place / f"study/results/{name}.parquet") for name in ("scores", "analysis"))
    figure = curves.draw(scores, selection.overlaid(analysis, {}))
    return [{float(x) for line in axes.lines for x in line.get_xdata()} for axes in figure.axes if axes.lines]
