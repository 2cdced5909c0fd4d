"""What faults leave of a study: a small one is harmed at seeded random moments, run again as the README says, and compared.

Run from the repository's root: `PYTHONPATH=.:tests python benchmarks/campaign.py FOLDER --points 20 [--slurm]`. First the
study runs unbroken. Then rounds of the same study are harmed, again and again, until each has ended in spite of it: a job, all
of a run or Snakemake alone is killed; on a Slurm of its own, also cancelled, out of time, sent back to the queue, or its node
lost. Every part that is there after a harm, and at the end of a round all, must equal the unbroken run's. A line of
`FOLDER/points.jsonl` for each harm, one of `rounds.jsonl` for each round; a campaign that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import running
import slurm_cluster

from workflow.jobs import locks

STUDY = {
    "families": {"tiny": running.SMOKE["families"]["tiny"] | {"steps": [20]}},
    "recipes": {
        "long": {"examples": 100, "batch": 4, "epochs": 24, "max_tokens": 128, "save_every": 100},
        "low": {"method": "lora", "examples": 60, "batch": 4, "epochs": 24, "max_tokens": 128, "save_every": 100},
    },
    "models": [{"train": ["mini_inference"], "recipes": ["long", "low"]}],
    "suites": {"plain": {"tests": ["mini_inference"], "shots": [0, 4], "limit": 60, "batch_tokens": 256}},
    "statistics": {"resamples": 100},
}
TARGETS = ["results/scores.parquet", "results/histories.parquet"]
MADE = ("models", "states")  # folders of resources that a round makes; the others are given to it
WAIT = 300.0
SCRIPT = re.compile(rb"/\.snakemake/scripts/tmp\w+\.(\w+)\.py$")
SLURM = ["--executor", "slurm", "--jobs", "10", "--retries", "2", "--slurm-status-command", "squeue",
         "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10"]  # fmt: skip


class Job(NamedTuple):
    """The script of a job at work: its process, its rule, its number in Slurm."""

    process: int
    rule: str
    number: str | None


@dataclass
class Campaign:
    """A campaign in its folder: the study's places, the cluster if there is one, the run of Snakemake at work."""

    folder: Path
    draw: np.random.Generator
    cluster: slurm_cluster.Cluster | None
    attempts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    run: subprocess.Popen[bytes] | None = None
    read: int = 0  # characters of what runs have said that are looked at already

    def environment(self) -> dict[str, str]:
        """What runs see."""
        return running.ENVIRONMENT | (self.cluster.environment if self.cluster else {})

    def command(self, place: Path, *arguments: str) -> list[str]:
        """The command that runs the study of a place, here or on the cluster by the repository's own profile."""
        if self.cluster is None:
            return running.command(place, *arguments)
        return [sys.executable, "-m", "snakemake", "--directory", "study", "--profile", "slurm", *SLURM, *arguments]

    def begin(self, place: Path) -> None:
        """Start a run in a group of its own, unlocking the study first where the one before asked for it."""
        told = place / "told"
        options = {"cwd": place, "env": self.environment(), "stdout": told.open("ab"), "stderr": subprocess.STDOUT}
        if "--unlock" in told.read_text(errors="replace")[self.read :]:
            subprocess.run(self.command(place, "--unlock"), check=True, **options)
        self.read = len(told.read_text(errors="replace"))
        self.run = subprocess.Popen(self.command(place, *TARGETS), start_new_session=True, **options)


# --- what is at work -------------------------------------------------------------------------------------------------


def jobs(place: Path) -> list[Job]:
    """The scripts at work on a place's study."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            script = SCRIPT.search(command[-1])
            if script and (folder / "cwd").resolve() == place / "study":
                number = re.search(rb"\0SLURM_JOB_ID=(\d+)\0", (folder / "environ").read_bytes())
                found.append(Job(int(folder.name), script[1].decode(), number[1].decode() if number else None))
    return sorted(found)


def trained(job: Job, place: Path) -> float:
    """The share of its optimizer steps that a tuning has done; below 0 before the first, and of other jobs."""
    for log in (place / "study/logs/tune").rglob("*.log") if job.rule == "tune" else []:
        text = read(log)
        if f", process {job.process} on " in read(locks.place(log)):
            return max((int(done) / int(of) for done, of in re.findall(r" tune: (\d+) of (\d+)", text)), default=-1.0)
    return -1.0


def read(path: Path) -> str:
    """What a file that others replace holds now."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(errors="replace")
    return ""


def watch(campaign: Campaign, place: Path) -> None:
    """Note what each process of a tuning has done: first and last of the optimizer steps that its log names, by claim."""
    for log in (place / "study/logs/tune").rglob("*.log"):
        steps = [int(step) for step in re.findall(r" tune: (\d+) of ", read(log))]
        claim = read(locks.place(log))
        if claim and steps:
            campaign.attempts.setdefault(str(log.relative_to(place)), {})[claim] = [steps[0], steps[-1]]


def wait(campaign: Campaign, place: Path, there: Callable[[], Any], seconds: float = WAIT) -> Any:
    """Wait until something is so or the run has ended, watching the tunings; gives what was found."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch(campaign, place)
        if found := there():
            return found
        if campaign.run is not None and campaign.run.poll() is not None:
            return None
        time.sleep(0.1)
    return None


# --- harms -----------------------------------------------------------------------------------------------------------


def kill_job(campaign: Campaign, job: Job) -> None:
    """SIGKILL to a job's script, as the kernel does when memory runs out."""
    os.kill(job.process, signal.SIGKILL)


def stop_job(campaign: Campaign, job: Job) -> None:
    """SIGTERM to a job's script."""
    os.kill(job.process, signal.SIGTERM)


def kill_snakemake(campaign: Campaign, job: Job) -> None:
    """SIGKILL to Snakemake alone."""
    campaign.run.kill()
    campaign.run.wait()


def kill_all(campaign: Campaign, job: Job) -> None:
    """SIGKILL to Snakemake and all that it has started here."""
    os.killpg(campaign.run.pid, signal.SIGKILL)
    campaign.run.wait()


def interrupt(campaign: Campaign, job: Job) -> None:
    """Ctrl-C: SIGINT to Snakemake and its jobs."""
    os.killpg(campaign.run.pid, signal.SIGINT)


def cancel(campaign: Campaign, job: Job) -> None:
    """`scancel`."""
    campaign.cluster.ask("scancel", job.number)


def time_limit(campaign: Campaign, job: Job) -> None:
    """Slurm's time limit, lowered to what the job has had."""
    campaign.cluster.ask("scontrol", "update", f"jobid={job.number}", "timelimit=1")


def requeue(campaign: Campaign, job: Job) -> None:
    """Back to the queue, as after a preemption; at once, not in two minutes."""
    campaign.cluster.ask("scontrol", "requeue", job.number)
    hurry(campaign.cluster, job.number)


def lose_node(campaign: Campaign, job: Job) -> None:
    """The node's daemon dies, its steps with it or not, and comes back once Slurm has given the node up."""
    cluster = campaign.cluster
    cluster.lose_node(with_steps=bool(campaign.draw.integers(2)))
    until(lambda: cluster.ask("sinfo", "--noheader", "--states=down", "--format=%N"))
    cluster.start_node()
    until(lambda: cluster.ask("sinfo", "--noheader", "--states=idle,mixed,allocated", "--format=%N"))
    for number in cluster.ask("squeue", "--noheader", "--states=pending", "--format=%i"):
        hurry(cluster, number)


def hurry(cluster: slurm_cluster.Cluster, number: str) -> None:
    """Let a job that went back to the queue start now."""
    until(lambda: cluster.ask("squeue", "--noheader", "--states=pending,running", f"--jobs={number}"))
    time.sleep(5)  # Slurm would hold a job that it could not start because the node is not yet done with it
    with contextlib.suppress(subprocess.CalledProcessError):
        cluster.ask("scontrol", "update", f"jobid={number}", "starttime=now")


def until(there: Callable[[], Any]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT
    while not there():
        if time.monotonic() > end:
            raise TimeoutError("waited in vain for Slurm")
        time.sleep(0.5)


LOCAL_HARMS = [kill_job, stop_job, kill_snakemake, kill_all, interrupt]
SLURM_HARMS = [kill_job, kill_snakemake, cancel, time_limit, requeue, lose_node]


# --- comparisons -----------------------------------------------------------------------------------------------------


def results(place: Path) -> dict[str, Path]:
    """The finished parts and weights of a place's study, by their place in it."""
    study = place / "study"
    found = [*(study / "results").rglob("*.parquet"), *(study / "resources/models").rglob("*.safetensors")]
    return {str(path.relative_to(study)): path for path in found if ".unfinished" not in str(path)}


def differing(place: Path, unbroken: Path) -> list[str]:
    """Results of a place that are not those of the unbroken run, value for value; weights byte for byte."""
    expected = results(unbroken)
    return [name for name, path in results(place).items() if not same(path, expected.get(name))]


def same(found: Path, expected: Path | None) -> bool:
    """Whether two results are equal; how long a tuning took is none of its results."""
    if expected is None or found.suffix == ".safetensors":
        return expected is not None and found.read_bytes() == expected.read_bytes()
    first, second = (pq.ParquetFile(path).read() for path in (found, expected))
    drop = [name for name in ("seconds",) if name in first.column_names]
    return first.drop_columns(drop).equals(second.drop_columns(drop))


def unfinished(place: Path) -> list[str]:
    """What a finished study should not have: pieces of results, saved states."""
    study = place / "study"
    found = [path for folder in ("results", "resources") for path in (study / folder).rglob("*.unfinished")]
    return [str(path.relative_to(study)) for path in [*found, *(study / "resources/states").rglob("*.safetensors")]]


def repeated(attempts: dict[str, dict[str, list[int]]]) -> dict[str, int]:
    """Of a round's tunings: processes that trained, those that began anew, and steps that were trained again."""
    anew, again = 0, 0
    for tuning in attempts.values():
        steps = list(tuning.values())
        for (_, before), (first, _) in itertools.pairwise(steps):
            anew += first == 1
            again += max(0, before - first + 1)
    return {"processes": sum(map(len, attempts.values())), "anew": anew, "steps_again": again}


# --- the campaign ----------------------------------------------------------------------------------------------------


def unbroken(campaign: Campaign) -> Path:
    """The study after an unbroken run on this machine, without Slurm."""
    place = campaign.folder / "unbroken"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        running.lay_out(place, STUDY)
        ended = running.run(place, *TARGETS)
        if ended.returncode:
            sys.exit(ended.stderr)
        (place / "done").touch()
    return place


def fresh(place: Path, given: Path) -> Path:
    """A place whose study has its bases and tasks but no model."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(given, place, ignore=shutil.ignore_patterns("results", "logs", "done"))
    for made in MADE:
        shutil.rmtree(place / "study/resources" / made, ignore_errors=True)
    profile = place / "slurm/config.yaml"
    profile.parent.mkdir()
    text = (running.ROOT / "slurm/config.yaml").read_text(encoding="utf-8")
    profile.write_text(text.replace("gpu_partition: gpu", "gpu_partition: accelerated").replace(": cpu\n", ": short\n"))
    return place


def harmed(campaign: Campaign, place: Path, given: Path, harms: list[Any]) -> dict[str, Any] | None:
    """Harm the study's run once at a random moment and look at what is left; None when it ended before."""
    if campaign.run is None or campaign.run.poll() is not None:
        campaign.begin(place)
    delay, share = campaign.draw.uniform(0, 12), campaign.draw.uniform(0, 0.9)
    training, harm = campaign.draw.integers(2) == 1, harms[campaign.draw.integers(len(harms))]
    if training:
        found = wait(campaign, place, lambda: [job for job in jobs(place) if trained(job, place) > share])
    else:
        wait(campaign, place, lambda: None, delay)
        found = wait(campaign, place, lambda: [job for job in jobs(place) if job.number or campaign.cluster is None])
    if not found:
        return None
    job = found[campaign.draw.integers(len(found))]
    try:
        harm(campaign, job)
    except (ProcessLookupError, subprocess.CalledProcessError):  # it ended that very moment
        return None
    if harm is time_limit:  # a minute at most, and the time to save a state
        wait(campaign, place, lambda: job not in jobs(place), 120)
        if campaign.cluster.ask("squeue", "--noheader", "--states=all", f"--jobs={job.number}", "--format=%T") == [
            "COMPLETED"
        ]:
            return None
    if campaign.cluster is None:
        wait(campaign, place, lambda: None)
    moment = {"share": round(share, 2)} if training else {"delay": round(delay, 2)}
    point = {"harm": harm.__name__, "rule": job.rule} | moment
    return point | {"differing": differing(place, given)}


def one_round(campaign: Campaign, place: Path, given: Path, harms: list[Any], most: int) -> Iterator[dict[str, Any]]:
    """Harm a study until it has ended, or so often; gives the points, then runs it to its end."""
    while most:
        point = harmed(campaign, place, given, harms)
        if point is not None:
            most -= 1
            yield point
        elif campaign.run is not None and campaign.run.poll() == 0:
            break
    while campaign.run is None or campaign.run.poll() != 0:
        if campaign.run is None or campaign.run.poll() is not None:
            campaign.begin(place)
        wait(campaign, place, lambda: None)
    watch(campaign, place)


def conduct(campaign: Campaign, points: int, seed: int) -> None:
    """Rounds of harms until there are enough points."""
    given, harms = unbroken(campaign), SLURM_HARMS if campaign.cluster else LOCAL_HARMS
    told, ended = campaign.folder / "points.jsonl", campaign.folder / "rounds.jsonl"
    number = len(lines(ended))
    while (done := len(lines(told))) < points:
        place = fresh(campaign.folder / f"round-{number}", given)
        campaign.draw, campaign.attempts = np.random.default_rng([seed, number]), {}
        campaign.run, campaign.read = None, 0
        for point in one_round(campaign, place, given, harms, points - done):
            append(told, {"round": number} | point)
        summary = {"round": number, "differing": differing(place, given), "unfinished": unfinished(place)}
        summary["missing"] = sorted(set(results(given)) - set(results(place)))
        append(ended, summary | repeated(campaign.attempts))
        number += 1


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON; none when there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line to a file of JSON, and say it."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def report(folder: Path) -> str:
    """The campaign as a Markdown table: harms by what they hit, rounds that ended equal, tunings repeated."""
    points, rounds = pd.DataFrame(lines(folder / "points.jsonl")), lines(folder / "rounds.jsonl")
    equal = sum(not (row["differing"] or row["missing"] or row["unfinished"]) for row in rounds)
    totals = Counter()
    for row in rounds:
        totals.update({key: row[key] for key in ("processes", "anew", "steps_again")})
    return "\n".join([
        pd.crosstab(points["harm"], points["rule"], margins=True).to_string(),
        f"{len(points)} harms, {int((points['differing'].str.len() > 0).sum())} of them left a result that differs",
        f"{len(rounds)} rounds, {equal} ended equal to the unbroken run",
        f"tunings: {totals['processes']} processes, {totals['anew']} began anew, {totals['steps_again']} steps again",
    ])  # fmt: skip


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slurm", action="store_true", help="on a Slurm that is started for it")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        cluster = None
        if asked.slurm:
            shutil.rmtree(folder / "slurm", ignore_errors=True)
            (folder / "slurm").mkdir()
            cluster = stack.enter_context(slurm_cluster.running(folder / "slurm"))
        conduct(Campaign(folder, np.random.default_rng(asked.seed), cluster), asked.points, asked.seed)
    print(report(folder))


if __name__ == "__main__":
    main()
