"""`snakemake --profile slurm` on a real Slurm: the smoke study's scores, what is asked for, where failures are told, faults."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import running
import slurm_cluster
from running import SMOKE

from workflow.study import selection

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
    assert rules == {"pretrain": 3, "tune": 3, "measure": 2, "predictions": 5, "scores": 2, "forecast": 1}
    plan = running.planned(submitted, "--forceall")
    assert sum(plan[rule] for rule in ("pretrain", "tune", "measure", "predict", "score", "forecast")) == 41


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


def test_a_selection_submits_one_batch_at_a_time(cluster: slurm_cluster.Cluster, smoke: Path, tmp_path: Path) -> None:
    place = with_profile(shutil.copytree(smoke, tmp_path / "place"))
    config = running.configured(place)
    config["families"]["tiny"]["steps"] = [0, 10, 20]
    config["models"] = [{"train": ["mini_facts"], "recipes": ["full"]}]
    config["suites"] = {"small": {"tests": ["mini_facts"], "limit": 8}}
    goal = {"tests": ["mini_facts"], "suite": "small", "indicators": [], "epsilon": 0.001}
    dropped = ("cohorts", "groups", "indicators", "figures", "summaries")
    kept = {key: value for key, value in config.items() if key not in dropped}
    running.configure(place, kept | {"selection": goal | {"budget": {"tunings": 3}, "batch": 2}})
    ended = run(place, cluster, "select")
    assert ended.returncode == 0, ended.stderr
    own = {number for number, _ in SUBMITTED.findall(ended.stderr)}
    rows = [line.split() for line in cluster.jobs("%i %V %e %T %k") if line.split()[0] in own]
    assert {row[3] for row in rows} == {"COMPLETED"}
    tunings, others = ([row for row in rows if ("tune" in row[4]) is kind] for kind in (True, False))
    batches = [[step for _, step, _ in facts["batch"]] for facts in selection.rounds(place / "study")]
    assert [len(batch) for batch in batches] == [2, 1, 0] and sorted(step for batch in batches for step in batch) == [
        0,
        10,
        20,
    ]
    (first, second, third), ends = tunings, [row[2] for row in others]
    assert max(first[1], second[1]) <= min(first[2], second[2]), "both are submitted before either ends"
    # Predictions and scores of the first batch, one submission for each model, end before the second batch is chosen.
    assert len(ends) == 6 and sum(end <= third[1] for end in ends) == 4


# --- faults ------------------------------------------------------------------------------------------------------------

MODEL = "family=tiny/step=20/train=mini_inference/format=default/recipe=full/seed=0"
HISTORY = f"results/histories/{MODEL}/part.parquet"


@pytest.fixture
def untuned(submitted: Path, tmp_path: Path) -> Path:
    """A copy of the study in which one model has yet to be tuned, for some ten seconds."""
    place = shutil.copytree(submitted, tmp_path / "place")
    changed = running.configured(place)
    changed["recipes"]["full"]["epochs"] = 400
    running.configure(place, changed)
    (place / f"study/logs/tune/{MODEL}.log").unlink()
    return place


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
