"""Tests pass on a machine whose user has a full cache, a token and a mirror of the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import running


def test_the_client_of_these_tests_has_an_empty_home() -> None:
    assert os.environ["HF_HOME"] == huggingface_hub.constants.HF_HOME
    assert "tunecast-hub-" in os.environ["HF_HOME"] and "HF_TOKEN" not in os.environ


@pytest.mark.faults
def test_hub_and_rows_are_tested_alike_beside_a_cache_full_of_foreign_things(tmp_path: Path) -> None:
    """Repositories of the names that tests use, with other contents; locks, a token, settings of a mirror that is not there."""
    home = tmp_path / "home"
    for kind, name in (("models", "lab--olmo"), ("datasets", "google-research-datasets--paws")):
        place = home / "hub" / f"{kind}--{name}"
        for folder in ("refs", "blobs", "snapshots/0123"):
            (place / folder).mkdir(parents=True)
        (place / "refs" / "main").write_text("0123")
        (place / "snapshots" / "0123" / "config.json").write_text("{")
        (place / "snapshots" / "0123" / "model.safetensors").symlink_to("../../blobs/gone")
    for name in ("datasets", "modules", ".locks", "xet"):
        (home / name).mkdir()
        (home / name / "foreign").write_bytes(b"\x00")
    (home / "token").write_text("hf_of_somebody")
    foreign = {
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN": "hf_x",
        "HF_ENDPOINT": "http://127.0.0.1:1",
    }
    foreign |= {"HF_DATASETS_CACHE": str(home / "datasets"), "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    before = sorted(path.relative_to(home) for path in home.rglob("*"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/storage/test_hub.py",
        "tests/data/test_tasks.py",
    ]
    ended = subprocess.run(
        [*command, "-k", "read_without_a_network or subset"], cwd=running.ROOT, env=os.environ | foreign,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert sorted(path.relative_to(home) for path in home.rglob("*")) == before
