"""`snakemake --profile slurm` on a real Slurm: the smoke study's scores, what is asked for, where failures are told, faults."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import running
import slurm_cluster
from running import SMOKE

from workflow import claims

LACKING = slurm_cluster.missing()
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(LACKING), reason=f"a Slurm needs programs that are not here: {', '.join(LACKING)}"),
]

SITE = {"gpu_partition: gpu": "gpu_partition: accelerated", "cpu_partition: cpu": "cpu_partition: short"}
# A cluster without accounting is asked through squeue, and one for tests more often than one that others share.
OPTIONS = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
SUBMITTED = re.compile(r"has been submitted with SLURM jobid (\d+) \(log: (.+)\)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """A Slurm with two partitions and two pretended GPUs."""
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as started:
        yield started
    assert slurm_cluster.steps(started) == []


def with_profile(place: Path) -> Path:
    """A place with the profile in it, the site's lines edited and no others."""
    shutil.copytree(running.ROOT / "slurm", place / "slurm")
    profile = place / "slurm" / "config.yaml"
    text = profile.read_text(encoding="utf-8")
    for line, own in SITE.items():
        assert text.count(line) == 1
        text = text.replace(line, own)
    profile.write_text(text, encoding="utf-8")
    return place


def begun(place: Path, cluster: slurm_cluster.Cluster, *arguments: str) -> subprocess.Popen[str]:
    """A run of the study of a place on the cluster."""
    command = [sys.executable, "-m", "snakemake", "--directory", "study", "--profile", "slurm", *OPTIONS, *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=place, env=running.ENVIRONMENT | cluster.environment, **pipes)


def run(place: Path, cluster: slurm_cluster.Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the study of a place on the cluster to its end, good or bad."""
    process = begun(place, cluster, *arguments)
    told = process.communicate()[1]
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=told)


@pytest.fixture(scope="module")
def submitted(cluster: slurm_cluster.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study after a whole run on the cluster."""
    place = with_profile(running.lay_out(tmp_path_factory.mktemp("submitted") / "place", SMOKE))
    ended = run(place, cluster)
    assert ended.returncode == 0, ended.stderr
    (place / "told").write_text(ended.stderr, encoding="utf-8")
    return place


def jobs(place: Path, cluster: slurm_cluster.Cluster) -> list[dict[str, str]]:
    """What Slurm says of each job that the whole run submitted."""
    own = {number for number, _ in SUBMITTED.findall((place / "told").read_text(encoding="utf-8"))}
    keys = ("number", "partition", "memory", "minutes", "cpus", "gpus", "what", "state")
    rows = [dict(zip(keys, line.split(), strict=True)) for line in cluster.jobs("%i %P %m %l %C %b %k %T")]
    return [row for row in rows if row["number"] in own]


def test_scores_equal_the_local_ones_exactly(submitted: Path, smoke: Path) -> None:
    for table in ("scores", "analysis"):
        local, remote = (pq.read_table(place / f"study/results/{table}.parquet") for place in (smoke, submitted))
        assert remote.num_rows > 0
        assert remote.equals(local), table


def test_a_model_s_predictions_and_a_base_s_scores_are_one_submission_each(
    submitted: Path, cluster: slurm_cluster.Cluster
) -> None:
    rules = Counter(
        row["what"].removeprefix("rule_").split("_wildcards")[0].split("-")[0] for row in jobs(submitted, cluster)
    )
    # 5 models: 2 untouched bases, 2 seeds, 1 LoRA; without grouping 16 predictions and 16 scores.
    assert rules == {"pretrain": 1, "tune": 3, "measure": 2, "predictions": 5, "scores": 2, "forecast": 1}
    plan = running.planned(submitted, "--forceall")
    assert sum(plan[rule] for rule in ("pretrain", "tune", "measure", "predict", "score", "forecast")) == 39


def test_slurm_is_asked_for_what_each_job_needs(submitted: Path, cluster: slurm_cluster.Cluster) -> None:
    rows = jobs(submitted, cluster)
    assert {row["state"] for row in rows} == {"COMPLETED"}
    for row in rows:
        on_gpu = any(rule in row["what"] for rule in ("tune", "measure", "predict"))
        assert row["partition"] == ("accelerated" if on_gpu else "short")
        assert row["cpus"] == ("2" if "pretrain" in row["what"] else "1")
        # Turns: the memory of one, whatever the number of jobs.
        small = "scores" in row["what"] or "forecast" in row["what"]
        assert row["memory"] == ("4000M" if small else "3001M" if on_gpu else "3003M")


def test_the_small_jobs_stay_on_the_login_node(submitted: Path) -> None:
    told = (submitted / "told").read_text(encoding="utf-8")
    local, remote = (set(re.findall(rf"^ *{kind} (\w+):", told, re.MULTILINE)) for kind in ("localrule", "rule"))
    assert remote == {"pretrain", "tune", "measure", "predict", "score", "forecast"}
    assert local >= {"generate", "fetch", "prepare", "gather", "analyse", "audit", "draw", "all"}


# --- faults ------------------------------------------------------------------------------------------------------------

MODEL = "family=tiny/step=20/train=mini_inference/format=default/recipe=full/seed=0"
HISTORY = f"results/histories/{MODEL}/part.parquet"


def wait_for(there: Callable[[], bool], what: str) -> None:
    """Wait until something is so, at most ten minutes."""
    end = time.monotonic() + 600
    while not there():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


def said(place: Path) -> tuple[str, list[int]]:
    """The claim of the tuning's process, and the optimizer steps that its log names, counted from 1."""
    log = place / f"study/logs/tune/{MODEL}.log"
    texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (claims.place(log), log)]
    return texts[0], [int(step) for step in re.findall(r" tune: (\d+) of ", texts[1])]


def cancel(cluster: slurm_cluster.Cluster, number: str) -> None:
    cluster.ask("scancel", number)


def time_out(cluster: slurm_cluster.Cluster, number: str) -> None:
    """What is left of its time falls below the two minutes that the profile sets aside for saving."""
    cluster.ask("scontrol", "update", f"jobid={number}", "timelimit=1")


def requeue(cluster: slurm_cluster.Cluster, number: str) -> None:
    """As after a preemption, but at once, not two minutes later."""
    cluster.ask("scontrol", "requeue", number)
    start_again(cluster, number)


def start_again(cluster: slurm_cluster.Cluster, number: str) -> None:
    """Have a job that went back to the queue start now."""

    def started() -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):  # as long as it is still ending
            cluster.ask("scontrol", "update", f"jobid={number}", "starttime=now")
        return cluster.ask("squeue", "--noheader", f"--jobs={number}", "--format=%T") == ["RUNNING"]

    # Slurm would hold a job that it could not start because the node is not yet done with it.
    wait_for(lambda: not slurm_cluster.steps(cluster), "its end")
    wait_for(started, "its second start")


@pytest.fixture
def untuned(submitted: Path, tmp_path: Path) -> Path:
    """A copy of the study in which one model has yet to be tuned, for some ten seconds."""
    place = shutil.copytree(submitted, tmp_path / "place")
    changed = running.configured(place)
    changed["recipes"]["full"]["epochs"] = 400
    running.configure(place, changed)
    (place / f"study/logs/tune/{MODEL}.log").unlink()
    return place


def test_a_tuning_goes_on_after_each_fault_and_ends_as_without(
    untuned: Path, cluster: slurm_cluster.Cluster, tmp_path: Path
) -> None:
    local = shutil.copytree(untuned, tmp_path / "local")
    process = begun(untuned, cluster, HISTORY)
    seen = {"", said(untuned)[0]}
    for harm in (cancel, requeue, time_out):  # losing a node takes longer than this tuning
        wait_for(lambda: said(untuned)[0] not in seen and len(said(untuned)[1]) > 1, f"a tuning to {harm.__name__}")
        claim, steps = said(untuned)
        assert (steps[0] == 1) == (harm is cancel), harm.__name__
        seen.add(claim)
        (number,) = cluster.ask("squeue", "--noheader", "--states=running", "--format=%i")
        harm(cluster, number)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert said(untuned)[0] not in seen and said(untuned)[1][0] > 1
    # Cancelled; requeued, then out of time; to its end, with three times the time.
    limits = cluster.jobs("%l %T")[-3:]
    assert [limit.split()[1] for limit in limits] == ["CANCELLED", "FAILED", "COMPLETED"]
    assert limits[2].split()[0] == "1:33:00"
    assert running.run(local, HISTORY).returncode == 0
    found, expected = (pq.ParquetFile(place / "study" / HISTORY).read() for place in (untuned, local))
    assert found.drop_columns("seconds").equals(expected.drop_columns("seconds"))
    weights = f"study/resources/models/{MODEL}/model.safetensors"
    assert (untuned / weights).read_bytes() == (local / weights).read_bytes()
    assert not list((untuned / "study/resources/states").rglob("*.safetensors"))


def test_a_job_killed_for_its_memory_gets_more(untuned: Path, cluster: slurm_cluster.Cluster) -> None:
    asked = ["--set-resources", "tune:mem_mb=150*attempt**4"]
    ended = run(untuned, cluster, HISTORY, *asked)
    assert ended.returncode == 0, ended.stderr
    assert cluster.jobs("%T %m")[-2:] == ["FAILED 150M", "COMPLETED 2400M"]
    assert "exceeded memory limit" in Path(SUBMITTED.findall(ended.stderr)[0][1]).read_text(encoding="utf-8")


def test_a_failed_job_names_a_log_that_tells_why(submitted: Path, cluster: slurm_cluster.Cluster) -> None:
    diverging = running.configured(submitted)
    diverging["recipes"]["full"]["learning_rate"] = 1.0e30
    running.configure(submitted, diverging)
    ended = run(submitted, cluster, "--retries", "1", HISTORY)
    assert ended.returncode == 1
    logs = [Path(log) for _, log in SUBMITTED.findall(ended.stderr)]
    assert len(logs) == 2  # at first and once again
    assert cluster.jobs("%T %m")[-2:] == ["FAILED 3001M", "FAILED 6002M"]
    for log in [*logs, submitted / f"study/logs/tune/{MODEL}.log"]:
        assert "tuning stopped at step" in log.read_text(encoding="utf-8")
        assert str(log).removeprefix(f"{submitted}/study/") in ended.stderr
