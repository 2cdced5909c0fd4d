"""Wheels of what a GPU machine lacks, fetched where there is a network: `python -m benchmarks.gpu.wheels --into wheels`.

The names are in wheels.txt, their versions in the locks; what is released as source alone is built. --python names the
version of the machine that they are for, a 64-bit Linux with an x86 processor.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.running import ROOT

LOCKS = ("requirements.lock", "requirements-test.lock")
GLIBC = (17, 24, 27, 28, 31, 34)  # versions 2.N that wheels are built for


def plain(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> list[str]:
    """The packages as `name==version`; exits where a lock does not have one."""
    lines = [line.split() for lock in LOCKS for line in (ROOT / lock).read_text(encoding="utf-8").splitlines()]
    pinned = {plain(words[0].split("==")[0]): words[0] for words in lines if words and "==" in words[0]}
    names = [line.strip() for line in (Path(__file__).parent / "wheels.txt").read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    if missing := [name for name in names if plain(name) not in pinned]:
        sys.exit(f"wheels.txt: {', '.join(missing)} found in no lock; expected in {' or '.join(LOCKS)}")
    return [pinned[plain(name)] for name in names]


def fetched(package: str, python: str, folder: Path) -> None:
    """The wheel of a package, built where the index has none."""
    platforms = [part for number in GLIBC for part in ("--platform", f"manylinux_2_{number}_x86_64")]
    download = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python,
        "--implementation", "cp", *platforms, "--platform", "manylinux2014_x86_64", "--dest", str(folder), package,
    ]  # fmt: skip
    if subprocess.run(download, capture_output=True).returncode:
        built = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), package]
        subprocess.run(built, check=True)


def main(arguments: Sequence[str]) -> None:
    """Fetch all of them and say how large they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.wheels", description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("wheels"))
    parser.add_argument("--python", default="3.12")
    options = parser.parse_args(arguments)
    options.into.mkdir(parents=True, exist_ok=True)
    for package in wanted():
        fetched(package, options.python, options.into)
    files = list(options.into.glob("*.whl"))
    print(f"{options.into}: {len(files)} wheels, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
