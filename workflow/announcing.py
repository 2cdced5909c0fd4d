"""What a run says at its start and, when jobs failed, at its end: plain lines for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import grid

FAILED = re.compile(r"Error in rule (?P<rule>\w+):\n(?P<facts>(?: {4}.*\n)*)")
LOG = re.compile(r"^ {4}log: (?P<path>.+?) \(check log file", re.MULTILINE)


def beginning(study: Mapping[str, Any], jobs: Mapping[str, int], benchmarks: Path) -> Iterator[str]:
    """What a study is made of, what is still to be done of it, and how long that took before.

    jobs: rule -> jobs that will run; benchmarks: folder with what Snakemake measured of earlier ones.
    """
    models, cells = grid.models(study), grid.cells(study)
    tuned = models[models["recipe"] != "none"]
    tests = grid.tests(study)
    parts = [
        _counted(len(study["imports"]), "import of released scores", "imports of released scores"),
        _counted(int(bool(study["variants"])), "table of variants"),
        _counted(models["family"].nunique(), "family", "families"),
        _counted(len(grid.bases(study)), "base"),
        _counted(tuned["train"].nunique(), "task tuned on", "tasks tuned on"),
        _counted(len(tuned), "tuned model"),
        _counted(tests["test"].nunique(), "test"),
        _counted(tests["test_format"].nunique(), "format"),
        _counted(len(cells), "cell"),
    ]
    yield f"Study: {', '.join(part for part in parts if part)}."
    yield f"To do: {', '.join(f'{count} {rule}' for rule, count in jobs.items())}."
    yield from _expected(jobs, benchmarks)


def _expected(jobs: Mapping[str, int], benchmarks: Path) -> Iterator[str]:
    """How long the jobs take one after the other, as far as others of their rule were measured."""
    medians = {rule: _median(benchmarks / rule) for rule in jobs}
    known = {rule: median for rule, median in medians.items() if median is not None}
    if known:
        seconds = sum(jobs[rule] * median for rule, median in known.items())
        each = ", ".join(f"{rule} {median:.0f} s" for rule, median in known.items())
        yield f"One after the other they take about {_time(seconds)}, by the median of earlier jobs ({each})."


def _median(folder: Path) -> float | None:
    """Median wall time of the measured jobs of a rule, seconds; None where there is none."""
    found = [pd.read_csv(path, sep="\t")["s"].iloc[-1] for path in sorted(folder.rglob("*.tsv"))]
    return float(pd.Series(found).median()) if found else None


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
