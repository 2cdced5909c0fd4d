"""What a run says at its start and at a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
import running

from workflow.planning import config_checks, messages
from workflow.study import grid

# What Snakemake 9.27.1 wrote of jobs that failed on one machine, and of a group of three that failed on a Slurm.
SAID = """\
RuleException:
CalledProcessError in file "Snakefile", line 16:
Command 'set -euo pipefail;  exit 1' returned non-zero exit status 1.
[Fri Nov 27 07:51:20 2026]
Error in rule score:
    message: None
    jobid: 3
    output: d.txt
    log: {0}/score.log (check log file(s) for error details)
    shell:
        exit 1
        (command exited with non-zero exit code)
Select jobs to execute...
Waiting at most 1 seconds for missing files:
b.txt (missing locally)
MissingOutputException in rule predict in file "Snakefile", line 5:
Job 1  completed successfully, but some output files are missing. Missing files after 1 seconds. This might be due to \
filesystem latency. If that is the case, consider to increase the wait time with --latency-wait:
b.txt (missing locally, parent dir not present)
[Fri Nov 27 07:51:21 2026]
Error in rule tune:
    message: SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'.
    jobid: 2
    output: c.txt
    log: {0}/tune.log, {0}/slurm/7.log (check log file(s) for error details)
Exiting because a job execution failed. Look above for error messages
"""
GROUP = """\
[Fri Nov 27 07:48:37 2026]
    message: Error in group g
    log: {0}/slurm/1.log (check log file(s) for error details)
    jobs:
        rule predict:
            jobid: 3
            output: out/a.txt
            log: {0}/a.log (check log file(s) for error details)
        rule score:
            jobid: 1
            output: out/c.txt
            log: {0}/c.log (check log file(s) for error details)
        rule predict:
            jobid: 2
            output: out/b.txt
            log: {0}/b.log (check log file(s) for error details)
    [Fri Nov 27 07:48:37 2026]
    Error in rule score:
        message: None
        jobid: 1
        input: out/b.txt
        output: out/c.txt
        log: {0}/c.log (check log file(s) for error details)
    [Fri Nov 27 07:48:37 2026]
    Error in rule predict:
        message: None
        jobid: 3
        output: out/a.txt
        log: {0}/a.log (check log file(s) for error details)
    [Fri Nov 27 07:48:37 2026]
    Error in rule predict:
        message: None
        jobid: 2
        input: out/a.txt
        output: out/b.txt
        log: {0}/b.log (check log file(s) for error details)
Shutting down, this might take some time.
"""


def failures(said: str, place: Path, *jobs: messages.Failed) -> list[str]:
    own = [job._replace(log=f"{place}/{job.log}") for job in jobs]
    return [line.replace(str(place), "logs") for line in messages.failures(own, said.format(place))]


def logs(place: Path, **texts: str) -> None:
    (place / "slurm").mkdir(exist_ok=True)
    for name, text in texts.items():
        (place / f"{name.replace('__', '/')}.log").write_text("2026-11-27 08:00:00 begun: 1 s\n" + text)


def test_each_failed_job_is_one_line_with_its_log_and_why(tmp_path: Path) -> None:
    """One tells why, one ended well but left no output, one was killed; the rest of a log and of a retry made good is nothing."""
    logs(
        tmp_path,
        score="Traceback\n2026-11-27 08:00:00 score family=x seed=0: ValueError: 3 of 4; see logs/score.log\n\n",
        predict="2026-11-27 08:00:00 ended: 9.5 s after the process, 3 s of CPU\n",
        tune="2026-11-27 08:00:00 tune: 3 of 20\n",
    )
    jobs = [
        messages.Failed(rule, number, f"{rule}.log") for rule, number in (("score", 3), ("predict", 1), ("tune", 2))
    ]
    assert failures(SAID, tmp_path, *jobs) == [
        "FAILED predict, log logs/predict.log: Job 1 completed successfully, but some output files are missing. Missing files "
        "after 1 seconds. This might be due to filesystem latency. If that is the case, consider to increase the wait time with "
        "--latency-wait: b.txt (missing locally, parent dir not present)",
        "FAILED tune, log logs/tune.log: SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'; last log line: "
        "'2026-11-27 08:00:00 tune: 3 of 20'; if memory ran out, run fewer jobs at once or request more "
        "(--set-resources tune:mem_mb=MB)",
        "FAILED score, log logs/score.log: score family=x seed=0: ValueError: 3 of 4; see logs/score.log",
    ]
    logs(tmp_path, slurm__7="slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\nsrun: error\n")
    assert (
        "tune.log: slurmstepd: error: Detected 1 oom_kill event in StepId=7.0; last log line"
        in failures(SAID, tmp_path, jobs[2])[0]
    )
    assert failures(SAID, tmp_path) == []


def test_of_jobs_that_were_submitted_together_those_are_named_that_failed(tmp_path: Path) -> None:
    jobs = [
        messages.Failed(*job, group="g")
        for job in (("score", 1, "c.log"), ("predict", 2, "b.log"), ("predict", 3, "a.log"))
    ]
    assert failures(GROUP, tmp_path, *jobs) == [
        "FAILED score, log logs/slurm/1.log: no log; it may have been killed before it started"
    ]
    logs(tmp_path, a="2026-11-27 08:00:00 ended: 9.5 s\n", b="2026-11-27 08:00:00 predict suite=s: row '1': nan\n")
    assert failures(GROUP, tmp_path, *jobs) == ["FAILED predict, log logs/b.log: predict suite=s: row '1': nan"]


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
    lines = list(messages.beginning(config_checks.read(running.SMOKE), jobs, tmp_path))
    assert lines == [
        "Study: 1 cohort, 1 family, 2 bases, 2 fine-tuning tasks, 3 fine-tuned models, 6 tests, 3 formats, 12 cells.",
        "To do: 2 tune, 2 measure, 4 score.",
        "GPU jobs take about 5.0 min of one GPU (tune 1.0 min, measure 4.0 min): from 3 measured jobs and the remaining tokens.",
    ]


@pytest.mark.slow
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
            "Study: 1 cohort, 1 family, 2 bases, 2 fine-tuning tasks, 3 fine-tuned models, 6 tests, 3 formats, 12 cells.",
            "To do: 1 generate.",
        ]
    )
    assert "To do" not in running.run(place, "resources/miniworld", "--dry-run").stderr


def test_a_first_run_is_estimated(tmp_path: Path) -> None:
    """24 rows of 54 tokens at most are next to nothing: what is left of a tuning is the half minute in which it starts."""
    full = {
        "family": "tiny",
        "step": "20",
        "train": "mini_inference",
        "format": "default",
        "recipe": "full",
        "seed": "0",
    }
    lines = list(messages.beginning(config_checks.read(running.SMOKE), {"tune": [full] * 4, "score": [full]}, tmp_path))
    assert lines[2] == (
        "GPU jobs take about 2.0 min of one GPU (tune 2.0 min): tune estimated for the GPU of `estimate` in the config."
    )


def test_a_run_without_gpu_jobs_takes_no_time_of_one(tmp_path: Path) -> None:
    assert len(list(messages.beginning(config_checks.read(running.SMOKE), {"score": [{}]}, tmp_path))) == 2


def test_a_time_that_cannot_be_estimated_is_reported(tmp_path: Path) -> None:
    study = running.SMOKE | {"families": {"tiny": {"source": "hub", "repo": "o/r", "steps": [20]}}}
    keys = {"family": "tiny", "step": "20", "train": "mini_facts", "format": "default", "recipe": "lora", "seed": "0"}
    lines = list(messages.beginning(config_checks.read(study), {"tune": [keys]}, tmp_path))
    assert lines[2].startswith("The time of the jobs is unknown: config.yaml: estimate/parameters: 'tiny' is missing")


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_times_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert messages.duration(seconds) == text
