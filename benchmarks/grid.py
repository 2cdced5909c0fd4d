"""Snakemake's own time on a study of ten thousand cells: dry run, a run with nothing to do, a step more.

Run from the repository's root: `PYTHONPATH=. python benchmarks/grid.py`; some minutes, 2 GB of memory, no model and no network.
--steps N makes it smaller (219 cells a step). --profile FILE keeps cProfile's figures of the dry run.
Prints a Markdown table of wall and CPU time.

The study is real, its outputs are not: each file that a dry run names is made empty, and `snakemake --touch` then records it
as Snakemake does after a job, with its inputs, parameters and code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TASKS = ["mini_facts", "mini_inference", "mini_control", "mini_paraphrase", "mini_summary", "mini_question"]
# Snakemake waits a tenth of a second before it touches a job's outputs, so that these are newer than those before: here 40
# minutes. Without the wait, too, an output is touched after its inputs.
UNHURRIED = (
    "from snakemake.executors import touch; touch.Executor.SLEEPING_TIME = 0; from snakemake.cli import main; main()"
)
# Outputs that are folders; the files of their checksums beside them, whose names begin with a dot, are not.
FOLDERS = re.compile(r"resources/((models|pretrained|averaged)/(.*/)?[^./][^/]*|miniworld)|results/pages")


def config(steps: int) -> dict[str, Any]:
    """A study of 219 cells a step: 72 tuned models and the untouched base on three suites, of these tests one by one on one."""
    shape = {"vocabulary": 512, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 2}
    saved = [10 * (number + 1) for number in range(steps + 1)]
    pretraining = {"corpus": "miniworld", "steps": saved[-1], "save": saved, **shape}
    lists = {"tests": TASKS, "limit": 100}
    mapped = {"tests": {task: [task, f"{task}_ood"] for task in TASKS}, "limit": 100}
    return {
        "families": {"mini": {"source": "trained", "steps": saved[:steps], "pretraining": pretraining}},
        "recipes": {"full": {"examples": 100}, "lora": {"method": "lora", "examples": 100}},
        "models": [{"train": TASKS, "recipes": ["full", "lora"], "seeds": [0, 1, 2, 3, 4, 5]}],
        "suites": {"first": lists, "second": {**lists, "labels": "generate"}, "third": mapped},
        "figures": ["curves"],
    }


class Place:
    """A folder with the study, and the command that runs it."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Write the config."""
        self.folder = folder
        self.configure(steps)

    def configure(self, steps: int) -> None:
        """Give the study so many steps."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config(steps), sort_keys=False), encoding="utf-8")

    def run(self, *arguments: str, profile: str | None = None) -> tuple[str, float, float]:
        """What Snakemake says, and its wall and CPU seconds."""
        started = ["-m", "cProfile", "-o", profile, "-m", "snakemake"] if profile else ["-c", UNHURRIED]
        command = [sys.executable, *started, "--directory", str(self.folder), *arguments]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if ended.returncode:
            sys.exit(ended.stderr[-2000:])
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return ended.stdout + ended.stderr, wall, cpu

    def pretend(self, said: str) -> int:
        """Make every output that a dry run names, of bases what their size is read from; how many there are."""
        found = {name for line in re.findall(r"^    output: (.*)$", said, re.MULTILINE) for name in line.split(", ")}
        for name in found:
            path = self.folder / name
            (path if FOLDERS.fullmatch(name) else path.parent).mkdir(parents=True, exist_ok=True)
            if not FOLDERS.fullmatch(name):
                path.write_text(json.dumps({"path": "none", "files": {}}), encoding="utf-8")
        return len(found)


def jobs(said: str) -> int:
    """Jobs that a dry run lists; 0 where there is nothing to do."""
    found = re.search(r"^total +(\d+)$", said, re.MULTILINE)
    return int(found[1]) if found else 0


def main(arguments: Sequence[str]) -> None:
    """Time the runs and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=46)
    parser.add_argument("--profile")
    options = parser.parse_args(arguments)
    print("| run | jobs | wall s | CPU s |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options.steps)

        def timed(name: str, *arguments: str, profile: str | None = None) -> str:
            said, wall, cpu = place.run(*arguments, profile=profile)
            print(f"| {name} | {jobs(said)} | {wall:.1f} | {cpu:.1f} |", flush=True)
            return said

        outputs = place.pretend(timed("dry run", "--dry-run", profile=options.profile))
        timed(f"touch of {outputs} outputs", "--touch", "--cores", "1000", "--scheduler", "greedy")
        if "Nothing to be done" not in timed("nothing to do", "--cores", "2"):
            sys.exit("the pretended study is not up to date")
        place.configure(options.steps + 1)
        timed("dry run of a step more", "--dry-run")
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(sys.argv[1:])
