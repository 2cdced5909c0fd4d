"""What is installed is pinned by version and hash, and the same wherever pins are repeated."""

from __future__ import annotations

import re
import runpy
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import running
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-test.lock")
LOWEST = ("transformers", "datasets", "peft", "snakemake")
PROJECT = tomllib.loads((running.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
lock = runpy.run_path(str(running.ROOT / "envs" / "lock.py"))


def locked(name: str) -> dict[str, Requirement]:
    """The pins of a lock by name; their hashes are checked on the way."""
    logical = (running.ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    pins = {}
    for line in logical:
        if line.startswith("-r "):
            continue
        requirement, *hashes = re.split(r"\s+--hash=", line)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest.strip()) for digest in hashes), line
        pin = Requirement(requirement)
        assert [part.operator for part in pin.specifier] == ["=="], line
        pins[canonicalize_name(pin.name)] = pin
    return pins


@pytest.mark.parametrize("name", [*LOCKS, "requirements-lowest.lock"])
def test_every_pin_of_a_lock_is_exact_and_has_its_hashes(name: str) -> None:
    assert len(locked(name)) >= 4


def test_no_package_is_pinned_twice() -> None:
    """But for one that is run with under a condition and tested with under none, such as colorama."""
    names = [name for one in LOCKS for name in locked(one)]
    for name in {name for name in names if names.count(name) > 1}:
        first, second = (locked(one)[name] for one in ("requirements.lock", "requirements-test.lock"))
        assert first.marker and not second.marker and first.specifier == second.specifier, name


def test_what_runs_here_needs_nothing_that_no_lock_has() -> None:
    pins = {**locked("requirements.lock"), **locked("requirements-test.lock")}
    there = {name for name, pin in pins.items() if pin.marker is None or pin.marker.evaluate()}
    for name in there:
        for text in requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                known = canonicalize_name(needed.name)
                assert known in there or known in locked("requirements-cuda.lock"), f"{name} needs {text}"


def test_the_locks_hold_what_the_project_asks_for() -> None:
    for text in PROJECT["dependencies"]:
        asked = Requirement(text)
        (pin,) = locked("requirements.lock")[canonicalize_name(asked.name)].specifier
        assert asked.specifier.contains(pin.version), text
    both = {**locked("requirements.lock"), **locked("requirements-test.lock")}
    for text in PROJECT["optional-dependencies"]["test"]:
        assert canonicalize_name(Requirement(text).name) in both


@pytest.mark.parametrize("name", LOWEST)
def test_the_lowest_versions_are_those_that_the_project_allows(name: str) -> None:
    (asked,) = [own for text in PROJECT["dependencies"] if (own := Requirement(text)).name == name]
    (pin,) = locked("requirements-lowest.lock")[name].specifier
    (bound,) = [part.version for part in asked.specifier if part.operator == ">="]
    assert Version(pin.version) == Version(bound)


@pytest.mark.parametrize("name", ["analysis", "model"])
def test_environments_for_conda_repeat_the_pins_of_the_lock(name: str) -> None:
    content = yaml.safe_load((running.ROOT / "envs" / f"{name}.yaml").read_text(encoding="utf-8"))
    (pins,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    for text in pins:
        pin = Requirement(text)
        assert pin.specifier == locked("requirements.lock")[canonicalize_name(pin.name)].specifier, text


@pytest.mark.parametrize("name", ["snakemake", "numpy", "pyarrow", "torch", "transformers"])
def test_what_runs_here_is_what_is_locked(name: str) -> None:
    assert locked("requirements.lock")[name].specifier.contains(version(name)), f"{name} {version(name)}"


def test_the_lock_keeps_hashes_of_torch_builds_that_pypi_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SHA-256 of no bytes at all is e3b0c442…; the hash that was locked for another version is dropped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "torch-9.whl").write_bytes(b"")
    entry = "torch==9 ; python_version >= '3' \\\n    --hash=sha256:{}\n"
    (tmp_path / "run").write_text(
        "numpy==1 \\\n    --hash=sha256:1\n" + entry.format("a") + "triton==2 \\\n  --hash=sha256:2\n"
    )
    (tmp_path / "lowest").write_text("numpy==0 \\\n    --hash=sha256:0\n" + entry.format("a"))
    (tmp_path / "all").write_text((tmp_path / "run").read_text() + "pytest==3 \\\n    --hash=sha256:3\n")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for before, kept in (("torch==9 \\\n    --hash=sha256:b", ["a", "b"]), ("torch==8 \\\n    --hash=sha256:c", ["a"])):
        (tmp_path / "requirements.lock").write_text(before + "\n")
        lock["main"](tmp_path)
        hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted([*kept, empty]))
        torch = f"torch==9 ; python_version >= '3' \\\n{hashes}\n"
        assert (tmp_path / "requirements.lock").read_text() == "numpy==1 \\\n    --hash=sha256:1\n" + torch
        assert (tmp_path / "requirements-cuda.lock").read_text() == "triton==2 \\\n  --hash=sha256:2\n"
        assert (tmp_path / "requirements-lowest.lock").read_text() == "numpy==0 \\\n    --hash=sha256:0\n"
        tested = "-r requirements.lock\npytest==3 \\\n    --hash=sha256:3\n"
        assert (tmp_path / "requirements-test.lock").read_text() == tested
