"""What a run says at its start and, when jobs failed, at its end: plain lines for a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow import costs, grid
from workflow.errors import StudyError

FAILED = re.compile(r"Error in rule (?P<rule>\w+):\n(?P<facts>(?: {4}.*\n)*)")
LOG = re.compile(r"^ {4}log: (?P<path>.+?) \(check log file", re.MULTILINE)


def begin(study: Mapping[str, Any], jobs: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Say on the terminal what `beginning` gives for the study of the working directory."""
    for line in beginning(study, jobs):
        print(line, file=sys.stderr)


def beginning(
    study: Mapping[str, Any], jobs: Mapping[str, Sequence[Mapping[str, str]]], place: Path = Path()
) -> Iterator[str]:
    """What a study is made of, what is still to be done of it, and how long that takes.

    jobs: rule -> keys of each job that will run; place: the study's folder.
    """
    models, cells = grid.models(study), grid.cells(study)
    tuned = models[models["recipe"] != "none"]
    tests = grid.tests(study)
    parts = [
        _counted(len(study["imports"]), "import of released scores", "imports of released scores"),
        _counted(len(study["cohorts"]), "cohort"),
        _counted(models["family"].nunique(), "family", "families"),
        _counted(len(grid.bases(study)), "base"),
        _counted(tuned["train"].nunique(), "task tuned on", "tasks tuned on"),
        _counted(len(tuned), "tuned model"),
        _counted(tests["test"].nunique(), "test"),
        _counted(tests["test_format"].nunique(), "format"),
        _counted(len(cells), "cell"),
    ]
    yield f"Study: {', '.join(part for part in parts if part)}."
    yield f"To do: {', '.join(f'{len(own)} {rule}' for rule, own in jobs.items())}."
    try:
        yield from _expected(study, jobs, place)
    except StudyError as error:
        yield f"How long its GPU jobs take is not known: {error}."


def _expected(study: Mapping[str, Any], jobs: Mapping[str, Sequence[Any]], place: Path) -> Iterator[str]:
    """How long jobs hold GPUs, or run where there is none, all times added up, and where that is known from."""
    stages = list(costs.planned(study, jobs, place / "resources", place / "results/benchmarks"))
    if not stages:
        return
    parts = ", ".join(f"{stage.rule} {_time(3600 * stage.hours)}" for stage in stages)
    whole = _time(3600 * sum(stage.hours for stage in stages))
    seen = sum(stage.measured for stage in stages)
    guessed = ", ".join(stage.rule for stage in stages if not stage.measured)
    known = [f"from {_counted(seen, 'measured job')} and the tokens to come"] if seen else []
    known += [f"{guessed} reckoned for the GPU of the config's `estimate`"] if guessed else []
    yield f"GPU jobs take about {whole} of one GPU ({parts}): {'; '.join(known)}."


def _time(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _counted(number: int, one: str, several: str = "") -> str:
    """A number of things; nothing for none."""
    return f"{number} {one if number == 1 else several or one + 's'}" if number else ""


def failures(log: str) -> Iterator[str]:
    """One line for each job that failed: its rule, the path of its log, and the last line that it wrote there.

    log: text of Snakemake's own log. A job that failed more than once is named once, by its last failure.
    """
    found: dict[str, str] = {}
    for block in FAILED.finditer(log):
        named = LOG.search(block["facts"])
        path = named["path"].split(", ")[0] if named else ""
        found[f"{block['rule']} {path}"] = f"FAILED {block['rule']}, log {path or 'none'}: {_last_line(Path(path))}"
    yield from found.values()


def _last_line(path: Path) -> str:
    """The last line of a file that says something."""
    if not path.is_file():
        return "wrote no log; it may have been killed before it began"
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "its log is empty; it may have been killed"
