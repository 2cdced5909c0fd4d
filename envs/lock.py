"""Write the locks from what `uv pip compile` resolved: `make lock` calls it as `python envs/lock.py FOLDER`.

FOLDER holds `run` (the packages that Tunecast imports), `all` (these and the test packages), `lowest` (the lowest versions
that are supported) and `torch/` (the wheel that pip takes here). PyTorch builds for CPUs are on an index of their own under the
same version number, which pip takes where it is configured: their hashes are kept beside those of PyPI's CUDA builds. Only the
latter need the packages of requirements-cuda.lock.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ENTRY = re.compile(r"^([\w.-]+)==(\S+).*(?:\n[ \t]+.*)*", re.MULTILINE)
HASH = re.compile(r"--hash=(\S+)")
CUDA = re.compile(r"(nvidia-|cuda-).+|triton")


def entries(text: str) -> dict[str, str]:
    """Each pin of a requirements file with its marker and hashes, by the package's name."""
    return {match[1]: match[0].rstrip() for match in ENTRY.finditer(text)}


def with_hashes(entry: str, more: set[str]) -> str:
    """An entry with some hashes more, sorted."""
    pin = entry.split(" \\\n")[0]
    return " \\\n".join([pin, *(f"    --hash={digest}" for digest in sorted({*HASH.findall(entry), *more}))])


def torch_hashes(entry: str, locked: Mapping[str, str], wheels: Path) -> set[str]:
    """Hashes of builds of the same torch that are not on PyPI: those locked before, and of the wheel that pip takes here."""
    before = locked.get("torch", "")
    same = entry.split()[0] == before.partition(" ")[0]
    here = {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in wheels.iterdir()}
    return here | (set(HASH.findall(before)) if same else set())


def _is_pinned(entry: str, other: str) -> bool:
    """Whether another entry pins the same version."""
    return entry.split()[0] == other.partition(" ")[0]


def _is_more(entry: str, other: str | None) -> bool:
    """Whether an entry is wanted where another is not: of a package that is not there yet, or under fewer conditions."""
    return other is None or (" ; " in other.split("\n")[0] and " ; " not in entry.split("\n")[0])


def main(folder: Path) -> None:
    """Write requirements.lock, and what other uses need beside it: requirements-cuda.lock, -test.lock and -lowest.lock."""
    run, everything, lowest = (entries((folder / name).read_text()) for name in ("run", "all", "lowest"))
    lock = Path("requirements.lock")
    run["torch"] = with_hashes(run["torch"], torch_hashes(run["torch"], entries(lock.read_text()), folder / "torch"))
    parts = {"requirements.lock": [], "requirements-cuda.lock": [], "requirements-test.lock": ["-r requirements.lock"]}
    for name, entry in run.items():
        parts["requirements-cuda.lock" if CUDA.fullmatch(name) else "requirements.lock"].append(entry)
    parts["requirements-test.lock"] += [entry for name, entry in everything.items() if _is_more(entry, run.get(name))]
    parts["requirements-lowest.lock"] = [
        entry for name, entry in lowest.items() if not _is_pinned(entry, run.get(name, ""))
    ]
    for name, pins in parts.items():
        Path(name).write_text("\n".join(pins) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
