"""Messages on the terminal at the start of a run and, when jobs failed, at its end."""

from __future__ import annotations

import atexit
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workflow.errors import StudyError
from workflow.jobs import cpu
from workflow.models import revisions
from workflow.planning import costs, local_time
from workflow.settings import Study
from workflow.storage import hub
from workflow.study import grid

# Snakemake's log lines after Ctrl-C or SIGTERM.
STOPPED = ("Terminating processes on user request", "Will exit after finishing currently running jobs")
GOES_ON = (
    "Stopped early. Run the same command to continue: finished jobs are kept, "
    "and fine-tuning resumes from its last saved state."
)
ENDED = re.compile(r"(?:^|\s)ended: \S")
PROGRESS = re.compile(r": \d+ of \d+$")
LIMIT = re.compile(r"oom|out of memory|memory limit|time limit|preempt|node fail", re.IGNORECASE)
LONGEST = 3  # rules whose time is printed
SHORT = "if memory ran out, run fewer jobs at once or request more (--set-resources {rule}:mem_mb=MB)"


def no_config(code: str) -> str:
    """The line on a study's folder, the working directory, that has no config. code: Tunecast's folder."""
    return (
        f"{Path('config.yaml').resolve()}: missing; a study is a folder with a config.yaml, and runs by "
        f"`snakemake --directory STUDY --cores all` in {code}; docs/tutorial.md shows one"
    )


def begin(study: Study, jobs: Mapping[str, Sequence[Mapping[str, str]]], cores: int | None = None) -> None:
    """Print the lines of `beginning` for the study in the working directory.

    cores: of this machine, if it runs all jobs and has no GPU.
    """
    for line in beginning(study, jobs, rate=local_time.rate() if cores and jobs else 0.0, cores=cores or 1):
        print(line, file=sys.stderr)


def beginning(
    study: Study,
    jobs: Mapping[str, Sequence[Mapping[str, str]]],
    folder: Path = Path(),
    rate: float = 0.0,
    cores: int = 1,
) -> Iterator[str]:
    """Lines on the size of a study, the jobs left to run and the time that they take.

    jobs: rule -> keys of each job that will run; folder: the study's folder; rate: operations in a second of one of the cores
    of this machine if it runs all jobs without a GPU, 0 otherwise.
    """
    models, cells = grid.models(study), grid.cells(study)
    tuned, elsewhere = grid.tuned_here(study), models["recipe"].isin(list(study["adopted"]))
    tests = grid.tests(study)
    parts = [
        _counted(len(study["imports"]), "import of released scores", "imports of released scores"),
        _counted(len(study["cohorts"]), "cohort"),
        _counted(models["family"].nunique(), "family", "families"),
        _counted(len(grid.bases(study)), "base"),
        _counted(tuned["train"].nunique(), "fine-tuning task"),
        _counted(len(tuned), "fine-tuned model"),
        _counted(int(elsewhere.sum()), "model tuned elsewhere", "models tuned elsewhere"),
        _counted(tests["test"].nunique(), "test"),
        _counted(tests["test_format"].nunique(), "format"),
        _counted(len(cells), "cell"),
    ]
    yield f"Study: {', '.join(part for part in parts if part)}."
    yield from _equal(study, folder)
    yield f"To do: {', '.join(f'{len(keys_of_jobs)} {rule}' for rule, keys_of_jobs in jobs.items())}."
    if rate and cpu.computes_bf16() is False:
        yield from _without_bf16(study)
    try:
        yield from _on_cores(study, jobs, folder, rate, cores) if rate else _on_gpu(study, jobs, folder)
    except StudyError as error:
        yield f"The time of the jobs is unknown: {error}."


def _without_bf16(study: Study) -> Iterator[str]:
    """A warning of the blocks that ask for bf16, on a CPU without units for it."""
    blocks: dict[str, Any] = {
        f"families/{name}/pretraining": family["pretraining"]
        for name, family in study["families"].items()
        if "pretraining" in family
    }
    for kind, entries in (
        ("recipes", study["recipes"]),
        ("suites", study["suites"]),
        ("indicators", study["indicators"]),
    ):
        blocks |= {f"{kind}/{name}": block for name, block in entries.items()}
    named = [name for name, block in blocks.items() if block.get("precision") == "bf16"]
    if named:
        yield (
            f"Warning: precision bf16 in {', '.join(named)}: this CPU has no units for bf16, fp32 is several times as fast."
        )


def _equal(study: Study, folder: Path) -> Iterator[str]:
    """Warnings of bases on the hub with equal weights, as far as their commits are known."""
    hosted = {name: family for name, family in study["families"].items() if family["source"] == "hub"}
    if not hosted:
        return
    pins: dict[tuple[str, int], hub.Pin] = {}
    unknown: dict[str, list[int]] = {name: [] for name in hosted}
    for family, step in grid.bases({**study, "families": hosted}).itertuples(index=False, name=None):
        path = folder / "resources/pins/bases" / grid.path({"family": family, "step": step}, grid.BASE_KEYS)
        if (pin := path.with_suffix(".json")).is_file():
            pins[family, step] = hub.read_pin(pin)
        else:
            unknown[family].append(step)
    for name, steps in unknown.items():
        yield from (
            f"Warning: {line}."
            for line in revisions.equal_commits(name, hosted[name], steps, folder / revisions.RECORDS)
        )
    yield from (f"Warning: {line}." for line in revisions.equal_weights(pins))


def _on_gpu(study: Study, jobs: Mapping[str, Sequence[Any]], folder: Path) -> Iterator[str]:
    """Line on the summed time of GPU jobs and the source of the estimate."""
    stages = list(costs.planned(study, jobs, folder / "resources", folder / "results/benchmarks"))
    if not stages:
        return
    whole = duration(3600 * sum(stage.hours for stage in stages))
    parts, seen = ", ".join(map(_timed, stages)), sum(stage.measured for stage in stages)
    guessed = ", ".join(stage.rule for stage in stages if not stage.measured)
    known = [f"from {_counted(seen, 'measured job')} and the remaining tokens"] if seen else []
    known += [f"{guessed} estimated for the GPU of `estimate` in the config"] if guessed else []
    yield f"GPU jobs take about {whole} of one GPU ({parts}): {'; '.join(known)}."


def _on_cores(study: Study, jobs: Mapping[str, Sequence[Any]], folder: Path, rate: float, cores: int) -> Iterator[str]:
    """Line on the time by the clock of all jobs on the cores of this machine, and the source of the estimate."""
    stages = list(local_time.stages(study, jobs, folder, rate))
    families = len({keys["family"] for keys in jobs.get("pretrain", [])})
    whole = duration(3600 * local_time.whole(stages, cores, families))
    longest = sorted(stages, key=lambda stage: -stage.hours)[:LONGEST]
    seen, on = sum(stage.measured for stage in stages), _counted(cores, "core")
    known = [f"from {_counted(seen, 'measured job')}"] if seen else []
    known += [f"estimated from {rate / 1e9:.0f} GFLOP/s a core"] if any(not stage.measured for stage in stages) else []
    yield f"About {whole} on {on}, without a GPU (CPU: {', '.join(map(_timed, longest))}): {'; '.join(known)}."


def _timed(stage: costs.Stage) -> str:
    """A rule with the time of its jobs."""
    return f"{stage.rule} {duration(3600 * stage.hours)}"


def duration(seconds: float) -> str:
    """A time in hours, minutes or seconds, whichever fits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _counted(number: int, one: str, several: str = "") -> str:
    """A count with its noun; empty text for 0."""
    return f"{number} {one if number == 1 else several or one + 's'}" if number else ""


class Failed(NamedTuple):
    """A job that failed: its rule, Snakemake's number for it, its log ('' for none), the group that it was submitted in."""

    rule: str
    number: int
    log: str
    group: str | None = None


def end(failed: Sequence[Failed], said: str) -> None:
    """Print which jobs failed and why; after Ctrl-C or SIGTERM, also how to continue, as the very last line.

    said: text of Snakemake's own log.
    """
    for line in failures(failed, said):
        print(line, file=sys.stderr)
    if any(sign in said for sign in STOPPED):
        atexit.register(print, GOES_ON, file=sys.stderr)  # Snakemake has more to say before it ends


def failures(failed: Sequence[Failed], said: str) -> Iterator[str]:
    """One line for each failed job: its rule, the path of its log and the reason, if known.

    Of jobs submitted as a group, those whose logs show a failure are listed; if no log does, the first job of the group.
    """
    together: dict[object, list[Failed]] = {}
    for job in sorted(failed, key=lambda job: job.number):
        together.setdefault(job.group or job.number, []).append(job)
    for jobs in together.values():
        lines = [line for job in jobs if (line := _told_by_log(job, said))]
        yield from lines or [_told_by_snakemake(jobs[0], said)]


def _told_by_log(job: Failed, said: str) -> str | None:
    """The line on a job whose log shows the failure; None without a log, or if the job succeeded."""
    last = _last_line(Path(job.log))
    if not last or ENDED.search(last):
        return None
    wrong = re.search(rf"(?:^|\s)({job.rule}(?: \S+=\S+)*: .*)", last)
    if wrong and not PROGRESS.search(last):
        return f"FAILED {job.rule}, log {job.log}: {wrong[1]}"
    why = _of_submission(job, said) or "was killed"
    return f"FAILED {job.rule}, log {job.log}: {why}; last log line: {last!r}; {SHORT.format(rule=job.rule)}"


def _told_by_snakemake(job: Failed, said: str) -> str:
    """The line on a job whose log does not show the failure."""
    why = _of_submission(job, said)
    for match in re.finditer(rf"^(\w+) in rule {job.rule}\b.*\n(?P<why>.*(?:\n(?!\[|\s*$).*)?)", said, re.MULTILINE):
        numbered = re.match(r"Job (\d+) ", match["why"])
        if numbered is None or int(numbered[1]) == job.number:
            why = " ".join(match["why"].split())
    if why is None:
        why = "the log is empty" if Path(job.log).is_file() else "no log; it may have been killed before it started"
    submitted = _submission(job, said)
    return f"FAILED {job.rule}, log {submitted or job.log or 'none'}: {why}"


def _submission(job: Failed, said: str) -> str | None:
    """Path of the cluster's log of a job or of its group; None if it was not submitted to a cluster."""
    if job.group:
        head = rf"^ {{4}}message: Error in group {re.escape(job.group)}\n"
        matches = re.findall(rf"{head} {{4}}log: (.+?) \(check", said, re.MULTILINE)
        return matches[-1] if matches else None
    block = rf"^Error in rule {job.rule}:\n(?: {{4}}.*\n)*? {{4}}jobid: {job.number}\n(?: {{4}}.*\n)*?"
    matches = re.findall(rf"{block} {{4}}log: (.+?) \(check", said, re.MULTILINE)
    logs = matches[-1].split(", ") if matches else []
    return next((path for path in logs if path != job.log), None)


def _of_submission(job: Failed, said: str) -> str | None:
    """Why a cluster ended a job: the last line on a limit in the cluster's log, else Snakemake's message."""
    log = Path(_submission(job, said) or "")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    limits = [line.strip() for line in lines if LIMIT.search(line)]
    message = re.findall(
        rf"^Error in rule {job.rule}:\n {{4}}message: (.+)\n {{4}}jobid: {job.number}$", said, re.MULTILINE
    )
    return limits[-1] if limits else next((text.rstrip(".") for text in reversed(message) if text != "None"), None)


def _last_line(path: Path) -> str:
    """The last line of a file that is not blank; empty text if there is none."""
    if not path.is_file():
        return ""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
