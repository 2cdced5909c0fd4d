"""A copy of the workflow's code with a study inside it, to run for real and to change at will: `<place>/study`."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import isolation  # noqa: F401, first of all: processes that tests start have its environment
import yaml

ROOT = Path(__file__).parents[1]
SMOKE = yaml.safe_load((ROOT / "tests" / "smoke" / "config.yaml").read_text(encoding="utf-8"))
CODE = ("Snakefile", "rules", "workflow", "envs", "profiles")
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


def lay_out(place: Path, config: Any) -> Path:
    """A new place with the code and a study of this config that has not run."""
    (place / "study").mkdir(parents=True)
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name)
        elif (ROOT / name).is_file():
            shutil.copy2(ROOT / name, place / name)
    configure(place, config)
    return place


def configure(place: Path, config: Any) -> None:
    """Give the study of a place another config."""
    (place / "study" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def configured(place: Path) -> dict[str, Any]:
    """The config of a place's study, to change."""
    return yaml.safe_load((place / "study" / "config.yaml").read_text(encoding="utf-8"))


def command(place: Path, *arguments: str) -> list[str]:
    """The command that runs the study of a place, from the place's own folder."""
    return [sys.executable, "-m", "snakemake", "--directory", "study", "--cores", "2", *arguments]


@functools.cache
def warm() -> subprocess.Popen[str]:
    """The Snakemake that has started and forks for each run of these tests; it ends with the process that asks it."""
    start = [sys.executable, str(ROOT / "tests" / "warm_start.py")]
    return subprocess.Popen(start, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the study of a place to its end, good or bad."""
    asked = command(place, *arguments)
    with tempfile.TemporaryDirectory() as told:
        output, errors = (Path(told, name) for name in ("output", "errors"))
        line = {"folder": str(place), "arguments": asked[3:], "output": str(output), "errors": str(errors)}
        print(json.dumps(line), file=warm().stdin, flush=True)
        code = int(warm().stdout.readline())
        return subprocess.CompletedProcess(asked, code, output.read_text("utf-8"), errors.read_text("utf-8"))


def planned(place: Path, *arguments: str) -> dict[str, int]:
    """Jobs that a run would start now: rule -> count."""
    ended = run(place, "--dry-run", *arguments)
    assert ended.returncode == 0, ended.stderr
    lines = (ended.stdout + ended.stderr).splitlines()
    if any(line.startswith("Nothing to be done") for line in lines):
        return {}
    table = lines[lines.index("Job stats:") + 3 :]
    counts = {rule: int(count) for rule, count in (line.split() for line in table[: table.index("")])}
    assert counts.pop("total") == sum(counts.values())
    return counts
