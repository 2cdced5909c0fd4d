"""What a study's time goes into: starts of jobs, loading, computing, and the workflow around them.

Run from the repository's root: `PYTHONPATH=. python benchmarks/study.py`. It runs a reduced default study (two bases, a third of
the pre-training) in a temporary folder; --whole runs the default study itself, --done FOLDER reads a study that was run.
Prints a Markdown table of seconds of wall time and of CPU.

Each job's log says when its process began its work, had imported the model's class, had loaded the model, and ended
(`workflow.jobs.job.clock`). What the cores had on offer and no job used is the workflow's: Snakemake itself, a job's end after
its last line, cores that waited for others. A busy machine stretches wall time; of CPU time it is the shares that count.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CORES = 2
CLOCK = re.compile(r" (begun|imported|loaded|ended): (\S+) s after the process, (\S+) s of CPU$", re.MULTILINE)
PARTS = {"begun": "start", "imported": "start", "loaded": "load", "ended": "compute"}  # what ends at each mark


def reduced() -> dict[str, Any]:
    """The default study's config with two bases and a third of the pre-training."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    family = config["families"]["mini"]
    family["steps"] = [0, 500]
    family["pretraining"] |= {"steps": 500, "save": [0, 500]}
    return config


def marks(log: Path) -> dict[str, tuple[float, float]]:
    """Mark -> wall and CPU seconds of the process by then, of a job's log."""
    found = CLOCK.findall(log.read_text(encoding="utf-8", errors="replace"))
    return {name: (float(age), float(cpu)) for name, age, cpu in found}


def split(log: Path) -> Iterator[tuple[str, float, float]]:
    """(part, wall, CPU) between the marks of a job's log; nothing of a job that has not ended."""
    own = marks(log)
    if "ended" not in own:
        return
    before = (0.0, 0.0)
    for name, part in PARTS.items():
        if name in own:
            yield part, own[name][0] - before[0], own[name][1] - before[1]
            before = own[name]


def run(folder: Path, config: dict[str, Any]) -> tuple[float, float]:
    """Wall and CPU seconds of a study, its jobs included."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--cores", str(CORES)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(folder: Path, whole: tuple[float, float] | None) -> None:
    """Print the split; whole: wall and CPU seconds of the run, where it is known."""
    walls, cpus, jobs = Counter(), Counter(), Counter()
    for log in sorted((folder / "logs").rglob("*.log")):
        parts = list(split(log))
        jobs[log.relative_to(folder / "logs").parts[0].removesuffix(".log")] += bool(parts)
        for part, wall, cpu in parts:
            # A job of two threads holds two cores from its start to its end.
            walls[part] += wall * (2 if "pretrain" in log.parts else 1)
            cpus[part] += cpu
    if whole:
        walls["workflow"] = CORES * whole[0] - sum(walls.values())
        cpus["workflow"] = whole[1] - sum(cpus.values())
    if not walls:
        sys.exit(f"{folder}: no log of a job that has ended; expected the folder of a study that was run")
    print("| part | core seconds | share | CPU s | share |\n|---|---:|---:|---:|---:|")
    for part in ("start", "load", "compute", *(["workflow"] if whole else [])):
        shares = walls[part] / sum(walls.values()), cpus[part] / sum(cpus.values())
        print(f"| {part} | {walls[part]:.0f} | {shares[0]:.0%} | {cpus[part]:.0f} | {shares[1]:.0%} |")
    listed = ", ".join(f"{count} {rule}" for rule, count in sorted(jobs.items()))
    print(f"\n{sum(jobs.values())} jobs: {listed}")
    if whole:
        print(f"wall {whole[0]:.0f} s on {CORES} cores, CPU {whole[1]:.0f} s")


def main(arguments: Sequence[str]) -> None:
    """Run a study, or take one that was run, and print where its time went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--whole", action="store_true")
    chosen.add_argument("--done", type=Path)
    options = parser.parse_args(arguments)
    if options.done:
        report(options.done, None)
        return
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) if options.whole else reduced()
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), run(Path(folder), config))


if __name__ == "__main__":
    main(sys.argv[1:])
