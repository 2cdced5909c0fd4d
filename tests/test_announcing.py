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
    3 on `published`. Two seeds of a tuning of which a third took 30 s take a minute; a measurement of half of them 4 minutes."""
    lora = {"family": "tiny", "step": "20", "train": "mini_facts", "format": "default", "recipe": "lora", "seed": "0"}
    full = lora | {"train": "mini_inference", "recipe": "full"}
    folder = tmp_path / "results/benchmarks"
    benchmark(folder / "tune" / grid.path(full, grid.MODEL_KEYS[:-1]), "seed=1", 30)
    benchmark(folder / "tune" / grid.path(lora | {"family": "gone"}, grid.MODEL_KEYS[:-1]), "seed=0", 9000)
    for step, seconds in (("0", 100), ("20", 140)):
        benchmark(folder / "measure/family=tiny", f"step={step}", seconds)
    for name, text in {"nothing": "", "header": "s\th:m:s\n", "half": "s\th:m:s\n12"}.items():
        (folder / f"measure/family=tiny/{name}.tsv").write_text(text)
    jobs = {"tune": [full, full | {"seed": "2"}], "measure": [{"family": "tiny", "step": "0"}] * 2, "score": [lora] * 4}
    lines = list(announcing.beginning(grid.read(running.SMOKE), jobs, tmp_path))
    assert lines == [
        "Study: 1 cohort, 1 family, 2 bases, 2 tasks tuned on, 3 tuned models, 6 tests, 3 formats, 12 cells.",
        "To do: 2 tune, 2 measure, 4 score.",
        "GPU jobs take about 5.0 min of one GPU (tune 1.0 min, measure 4.0 min): from 3 measured jobs and the tokens to come.",
    ]


def test_a_dry_run_begins_with_the_lines_of_a_run(tmp_path: Path) -> None:
    """Of a study that needs one job; asked for what is there, it says nothing."""
    place = running.lay_out(tmp_path / "place", running.SMOKE)
    said = []
    for arguments in (["--dry-run"], []):
        ended = running.run(place, "results/figures/none", *arguments)
        assert ended.returncode == 1 and "Study: " not in ended.stderr, "there is no such figure"
        ended = running.run(place, "resources/miniworld", *arguments)
        assert ended.returncode == 0, ended.stderr
        said.append([line for line in ended.stderr.splitlines() if line.startswith(("Study: ", "To do: "))])
    assert (
        said[0]
        == said[1]
        == [
            "Study: 1 cohort, 1 family, 2 bases, 2 tasks tuned on, 3 tuned models, 6 tests, 3 formats, 12 cells.",
            "To do: 1 generate.",
        ]
    )
    assert "To do" not in running.run(place, "resources/miniworld", "--dry-run").stderr


def test_a_first_run_is_reckoned(tmp_path: Path) -> None:
    """24 rows of 54 tokens at most are next to nothing: what is left of a tuning is the half minute in which it starts."""
    full = {
        "family": "tiny",
        "step": "20",
        "train": "mini_inference",
        "format": "default",
        "recipe": "full",
        "seed": "0",
    }
    lines = list(announcing.beginning(grid.read(running.SMOKE), {"tune": [full] * 4, "score": [full]}, tmp_path))
    assert lines[2] == (
        "GPU jobs take about 2.0 min of one GPU (tune 2.0 min): tune reckoned for the GPU of the config's `estimate`."
    )


def test_a_run_without_gpu_jobs_takes_no_time_of_one(tmp_path: Path) -> None:
    assert len(list(announcing.beginning(grid.read(running.SMOKE), {"score": [{}]}, tmp_path))) == 2


def test_what_cannot_be_reckoned_is_said(tmp_path: Path) -> None:
    study = running.SMOKE | {"families": {"tiny": {"source": "hub", "repo": "o/r", "steps": [20]}}}
    keys = {"family": "tiny", "step": "20", "train": "mini_facts", "format": "default", "recipe": "lora", "seed": "0"}
    lines = list(announcing.beginning(grid.read(study), {"tune": [keys]}, tmp_path))
    assert lines[2].startswith(
        "How long its GPU jobs take is not known: config.yaml: estimate/parameters: 'tiny' is missing"
    )


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_times_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert announcing._time(seconds) == text
