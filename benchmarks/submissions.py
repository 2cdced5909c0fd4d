"""What submitting costs: a study's predictions and scores through Slurm, grouped as in the profile and each job for itself.

Run from the repository's root: `PYTHONPATH=.:tests python benchmarks/submissions.py PLACE FOLDER --rounds 1`. PLACE is a copy
of the code with a study in it whose models are tuned (`running.lay_out`, then a run). Prints, for each way, submissions, wall
time, how long jobs waited, and what of their time on the node was not the scripts' own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import running
import slurm_cluster

ARGUMENTS = ["--profile", "slurm", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1",
             "--latency-wait", "5", "results/scores.parquet"]  # fmt: skip
GONE = ("predictions", "scores", "items", "benchmarks/predict")
SITE = {"gpu_partition: gpu": "gpu_partition: accelerated", "cpu_partition: cpu": "cpu_partition: short"}
GROUPING = re.compile(r"^groups:\n.*?(?=^resources:)", re.MULTILINE | re.DOTALL)


def without_predictions(place: Path, copy: Path, grouped: bool) -> Path:
    """A copy of a place that has yet to predict and score, with the profile grouping its jobs or not."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    for name in GONE:
        shutil.rmtree(copy / "study/results" / name, ignore_errors=True)
    (copy / "study/results/scores.parquet").unlink(missing_ok=True)
    profile = copy / "slurm/config.yaml"
    profile.parent.mkdir(exist_ok=True)
    text = (running.ROOT / "slurm/config.yaml").read_text(encoding="utf-8")
    for line, own in SITE.items():
        text = text.replace(line, own)
    profile.write_text(text if grouped else GROUPING.sub("", text), encoding="utf-8")
    return copy


def measured(place: Path, cluster: slurm_cluster.Cluster) -> dict[str, Any]:
    """A run to its end: what Slurm says of its submissions, what Snakemake's benchmarks say of the predictions' scripts."""
    before, start = len(cluster.jobs("%i")), time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--directory", "study", *ARGUMENTS]
    ended = subprocess.run(
        command, cwd=place, env=running.ENVIRONMENT | cluster.environment, capture_output=True, text=True
    )
    if ended.returncode:
        sys.exit(ended.stderr)
    wall = time.monotonic() - start
    jobs = pd.DataFrame([line.split() for line in cluster.jobs("%V %S %e %k %T")[before:]])
    jobs.columns = ["submitted", "started", "ended", "what", "state"]
    times = jobs[["submitted", "started", "ended"]].apply(pd.to_datetime)
    on_node = (times["ended"] - times["started"]).dt.total_seconds()
    predicting = jobs["what"].str.contains("predict")
    scripts = sum(
        float(pd.read_table(path)["s"].iloc[0]) for path in (place / "study/results/benchmarks/predict").rglob("*.tsv")
    )
    return {
        "submissions": len(jobs),
        "wall": wall,
        "waited": (times["started"] - times["submitted"]).dt.total_seconds().mean(),
        "predicting": int(predicting.sum()),
        "on_node": on_node[predicting].sum(),
        "scripts": scripts,
        "overhead": (on_node[predicting].sum() - scripts) / predicting.sum(),
        "scoring": int((~predicting).sum()),
        "scoring_on_node": on_node[~predicting].sum(),
    }


def rounds(place: Path, folder: Path, number: int) -> Iterator[dict[str, Any]]:
    """Both ways, one after the other, so often."""
    (folder / "slurm").mkdir(parents=True)
    with slurm_cluster.running(folder / "slurm") as cluster:
        for turn in range(number):
            for way in (True, False) if turn % 2 == 0 else (False, True):
                copy = without_predictions(place, folder / "place", way)
                yield {"grouped": way, "turn": turn} | measured(copy, cluster)


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    for row in rounds(asked.place.resolve(), asked.folder.resolve(), asked.rounds):
        print(pd.Series(row).round(1).to_string(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
