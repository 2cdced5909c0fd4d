"""The lowest supported versions of transformers, datasets, peft and Snakemake do what the locked ones do.

A virtual environment holds them in front of the packages that are installed here, so that little is fetched.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest
import running
from project.test_requirement_locks import LOWEST, locked

pytestmark = pytest.mark.faults

SLICE = "results/slices/train=mini_facts/suite=published/scores.parquet"
READING = ("tests/storage/test_hub.py", "-k", "pinned or subset")


@pytest.fixture(scope="module")
def lowest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment."""
    place = tmp_path_factory.mktemp("lowest")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
    )
    (Path(purelib.strip()) / "locked.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*install, "--requirement", str(running.ROOT / "requirements-lowest.lock")], check=True)
    return python


def test_the_environment_has_the_lowest_versions(lowest: Path) -> None:
    code = f"from importlib.metadata import version; print(*map(version, {LOWEST}))"
    found = subprocess.check_output([lowest, "-c", code], text=True).split()
    pins = locked("requirements-lowest.lock")
    assert [f"=={number}" for number in found] == [str(pins[name].specifier) for name in LOWEST]


def test_a_slice_of_the_smoke_study_runs_on_the_lowest_versions(lowest: Path, tmp_path: Path) -> None:
    """Pre-training, adapters, prediction and scores; a base is at chance or above, and rows are as many as asked for."""
    place = running.lay_out(tmp_path / "place", running.SMOKE)
    command = [str(lowest), *running.command(place, SLICE)[1:]]
    ended = subprocess.run(command, cwd=place, env=running.ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = pd.read_parquet(place / "study" / SLICE)
    assert set(found["recipe"]) == {"none", "lora"} and found["n"].eq(8).all()
    assert found["value"].between(0, 1).all() and found["value"].notna().all()


def test_rows_of_the_hub_are_read_by_the_lowest_versions(lowest: Path) -> None:
    command = [lowest, "-m", "pytest", "-p", "no:cacheprovider", *READING]
    ended = subprocess.run(command, cwd=running.ROOT, env=running.ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:]
