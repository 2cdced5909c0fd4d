"""Metrics, checks, figures and readers in the folder of a study, through the real Snakefile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import running

FILES = {
    "metrics/length.py": '''
"""Length of the output in characters."""

from workflow.evaluation.further import _units
from workflow.evaluation.metrics import PerRow

METRIC = PerRow(("rank",), lambda rows: _units.of(rows["output"]), better="lower")
''',
    "metrics/_units.py": """
def of(texts):
    return texts.str.len().to_numpy(dtype=float)
""",
    "checks/looked_at.py": '''
"""Scores are there."""

from workflow.audit.inputs import finding


def check(material):
    yield finding("note", material.primary.head(1), "scores are there", n=len(material.primary))
''',
    "figures/steps.py": '''
"""Untouched bases on every test."""

from workflow.report import drawing, selection

NEEDS = ()
SECTION = "base"
INTERVAL = "over resampled test rows"
CONCLUSIONS = ("learning",)


def draw(scores, analysis):
    rows = selection.only(analysis, "performance")
    bases = rows[rows["train"] == "none"]
    return drawing.curves(scores, bases, drawing.model_styles(analysis, bases))
''',
    "readers/lines.py": '''
"""One score a line: model, step, test, accuracy, rows."""

from workflow.released.runs import Run, Score

SOURCE = "results, one score a line"
PATTERNS = ("*.txt",)
LABELS = {}


def runs(path, block):
    for line in path.read_text().splitlines():
        model, step, test, value, rows = line.split()
        score = Score(test, "acc", float(value), n=int(rows), shots=0)
        yield Run(str(path), model, f"step{step}", (score,))
''',
    "theirs/scores.txt": "70m 1000 arc_easy 0.38 2376\n70m 2000 arc_easy 0.41 2376\n",
}
TARGETS = {
    "metric": "results/slices/train=mini_facts/suite=own/scores.parquet",
    "check": "results/audit.parquet",
    "figure": "results/figures/steps.pdf",
    "reader": "results/imported/import=theirs/part.parquet",
}


@pytest.fixture(scope="module")
def finished(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study with its own modules after a run; not to be changed."""
    place = shutil.copytree(smoke, tmp_path_factory.mktemp("plugins") / "place")
    for name, text in FILES.items():
        path = place / "study" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    config = running.configured(place)
    config["suites"]["own"] = {
        "tests": {"mini_facts": ["mini_facts"]},
        "limit": 4,
        "metrics": ["length", "bits_per_byte"],
    }
    config["figures"] = [*config["figures"], "steps"]
    config["imports"] = {"theirs": {"reader": "lines", "path": "theirs"}}
    running.configure(place, config)
    ended = running.run(place, *TARGETS.values())
    assert ended.returncode == 0, ended.stderr
    return place


def test_modules_of_a_study_are_used(finished: Path) -> None:
    study = finished / "study"
    scores = pd.read_parquet(study / TARGETS["metric"])
    added = scores[scores["metric"] == "length"]
    assert set(added["better"]) == {"lower"} and (added["value"] > 1).all() and "bits_per_byte" in set(scores["metric"])
    audit = pd.read_parquet(study / TARGETS["check"])
    assert audit.loc[audit["check"] == "looked_at", "evidence"].tolist() == ["scores are there"]
    assert (study / TARGETS["figure"]).stat().st_size > 1000
    imported = pd.read_parquet(study / TARGETS["reader"])
    assert sorted(imported.loc[imported["metric"] == "acc", "value"]) == [0.38, 0.41]


def line(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of a file of the study."""

    def change(place: Path) -> None:
        text = (place / "study" / path).read_text(encoding="utf-8")
        assert old in text
        (place / "study" / path).write_text(text.replace(old, new), encoding="utf-8")

    return change


COSTS: dict[str, tuple[Callable[[Path], None], str, set[str]]] = {
    "a metric": (line("metrics/length.py", '"rank",', '"rank", "answer",'), "metric", {"score", "slice"}),
    "what metrics share": (line("metrics/_units.py", "dtype=float)", "dtype=float) + 1"), "metric", {"score", "slice"}),
    "a check": (line("checks/looked_at.py", '"note"', '"warning"'), "check", {"audit"}),
    "a figure": (line("figures/steps.py", '== "none"', '!= "x"'), "figure", {"draw"}),
    "a reader": (line("readers/lines.py", "shots=0", "shots=1"), "reader", {"adopt"}),
    "a comment": (line("readers/lines.py", "One score a line:", "A score a line:"), "reader", set()),
}


@pytest.mark.parametrize("case", COSTS)
def test_a_change_of_a_module_runs_its_own_jobs_alone(finished: Path, tmp_path: Path, case: str) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    change, target, cost = COSTS[case]
    change(place)
    assert set(running.planned(place, TARGETS[target])) == cost


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics/other.py", "VALUE = 1\n", "metrics/other.py: found no METRIC; expected METRIC"),
        ("checks/curves.py", "check = 1\n(", "checks/curves.py, line 2: SyntaxError: "),
        ("figures/curves.py", "def draw(s, a): ...\nNEEDS = SECTION = ()\n",
         "figures/curves.py: Tunecast already has a module 'curves'; rename the file"),
        ("readers/other.py", "def runs(path, block): ...\n", "readers/other.py: found no SOURCE, PATTERNS, LABELS; expected"),
        ("metrics/length.py", "METRIC = 1 / 0\n", "metrics/length.py, line 1: ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_used_is_one_line(
    finished: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    place = shutil.copytree(finished, tmp_path / "place")
    (place / "study" / name).write_text(text, encoding="utf-8")
    ended = running.run(place, "--dry-run")
    assert ended.returncode == 1
    assert [row for row in ended.stderr.splitlines() if row.startswith(said)], ended.stderr
    assert "Traceback" not in ended.stderr
