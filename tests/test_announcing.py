"""What a run says at its start and at a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
import running

from workflow import announcing, grid

LOG = """Select jobs to execute...
Error in rule tune:
    message: None
    jobid: 3
    output: a, b
    log: {folder}/tune.log (check log file(s) for error details)
Trying to restart job 3.
Error in rule tune:
    jobid: 3
    log: {folder}/tune.log (check log file(s) for error details)
Error in rule predict:
    jobid: 4
    log: {folder}/gone.log, other.log (check log file(s) for error details)
Error in rule score:
    jobid: 5
    log: {folder}/empty.log (check log file(s) for error details)
Shutting down
"""


def test_each_failed_job_is_one_line_with_its_log_and_what_it_said_last(tmp_path: Path) -> None:
    (tmp_path / "tune.log").write_text("began\ntune family=x: diverged at update 3\n\n")
    (tmp_path / "empty.log").write_text("")
    assert list(announcing.failures(LOG.format(folder=tmp_path))) == [
        f"FAILED tune, log {tmp_path}/tune.log: tune family=x: diverged at update 3",
        f"FAILED predict, log {tmp_path}/gone.log: wrote no log; it may have been killed before it began",
        f"FAILED score, log {tmp_path}/empty.log: its log is empty; it may have been killed",
    ]
    assert list(announcing.failures("Nothing to be done")) == []


def benchmark(folder: Path, name: str, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")


def test_a_run_begins_with_what_the_study_is_and_what_is_left(tmp_path: Path) -> None:
    """3 tuned models: two seeds of one recipe, one of the other; 2 bases; cells by hand: 5 on `written`, 4 on `formats`,
    3 on `published`. 2 tunes at a median of 30 s and 4 predictions of 60 s are 5 minutes."""
    for name, seconds in (("a", 10), ("b", 30), ("c", 100)):
        benchmark(tmp_path / "tune/family=x", name, seconds)
    benchmark(tmp_path / "predict", "a", 60)
    lines = list(announcing.beginning(grid.read(running.SMOKE), {"tune": 2, "predict": 4, "score": 4}, tmp_path))
    assert lines == [
        "Study: 1 family, 2 bases, 2 tasks tuned on, 3 tuned models, 6 tests, 3 formats, 12 cells.",
        "To do: 2 tune, 4 predict, 4 score.",
        "One after the other they take about 5.0 min, by the median of earlier jobs (tune 30 s, predict 60 s).",
    ]


def test_a_first_run_has_no_times_to_go_by(tmp_path: Path) -> None:
    lines = list(announcing.beginning(grid.read(running.SMOKE), {"tune": 2}, tmp_path))
    assert len(lines) == 2


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_times_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert announcing._time(seconds) == text
