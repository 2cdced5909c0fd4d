"""Parts of a run in processes of their own: what is left of them, their time limits, the file of their results."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
NEEDED = (
    "torch", "transformers", "accelerate", "peft", "safetensors", "pyarrow", "pandas", "sklearn", "yaml", "jsonschema",
    "pytest", "hypothesis",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "accelerate", "peft")
GRACE = 20  # seconds in which a process that is out of time may end in good order


class Part(NamedTuple):
    """A part: its name, the module that measures it (None: the tests), its cells, and the seconds that it may take."""

    name: str
    module: str | None
    cells: Sequence[str]
    limit: float


Result = dict[str, Any]  # part, cell, state (ok, failed, out of time), values, seconds, and what `facts` says


def facts(device: str) -> dict[str, Any]:
    """What a result holds for: device, driver, versions, code; found without torch, which takes seconds to import."""
    name, driver = _gpu() if device == "cuda" else ("CPU", "")
    found = {name: _version(name) for name in PACKAGES}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"device": name, "driver": driver, "versions": {"python": python, **found}, "code": code()}


def _gpu() -> tuple[str, str]:
    """Name and driver of the first GPU."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    name, driver = told.splitlines()[0].split(",")
    return name.strip(), driver.strip()


def at_hand() -> str:
    """`cuda` where NVIDIA's driver knows of a GPU, else `cpu`."""
    program = shutil.which("nvidia-smi")
    told = program and subprocess.run([program, "-L"], capture_output=True, text=True)
    return "cuda" if told and told.returncode == 0 and "GPU" in told.stdout else "cpu"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def code() -> str:
    """Hash of the code that is measured."""
    found = hashlib.sha256()
    folders = (ROOT / "workflow", ROOT / "benchmarks", ROOT / "tests")
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def read(results: Path) -> list[Result]:
    """The results of a file; a line that a kill has cut short is left out."""
    found = []
    for line in results.read_text(encoding="utf-8").splitlines() if results.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def add(results: Path, result: Result) -> None:
    """Add a result to a file, on the disk before this returns."""
    cut = results.is_file() and not results.read_bytes().endswith(b"\n") and results.stat().st_size > 0
    with results.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(result) + "\n")
        file.flush()
        os.fsync(file.fileno())


def latest(found: Sequence[Result], here: Mapping[str, Any]) -> dict[tuple[str, str], Result]:
    """The last result of each cell on a device like this one with these versions."""
    same = [row for row in found if all(row[key] == here[key] for key in ("device", "versions"))]
    return {(row["part"], row["cell"]): row for row in same}


def left(part: Part, found: Sequence[Result], here: Mapping[str, Any]) -> list[str]:
    """Cells of a part that are to be measured: those without a result, and those that failed with other code."""
    known = latest(found, here)
    return [
        cell
        for cell in part.cells
        if (part.name, cell) not in known
        or (known[part.name, cell]["state"] != "ok" and known[part.name, cell]["code"] != here["code"])
    ]


def run(
    parts: Sequence[Part], results: Path, device: str, deadline: float = float("inf"), wheels: Path | None = None
) -> bool:
    """Run what is left of the parts, each within its limit; whether all of it has run by the deadline (`time.monotonic`).

    A part that the deadline cuts short, rather than its own limit, is no failure: its other cells run next time.
    """
    here = facts(device)
    with brought(wheels) as environment:
        for part in parts:
            cells = left(part, read(results), here)
            if not cells:
                continue
            seconds = min(part.limit, deadline - time.monotonic() - GRACE)
            if seconds < min(part.limit, 45):
                return False
            print(f"{part.name}: {', '.join(cells)}", flush=True)
            ended = run_part(part, cells, results, here, seconds, environment)
            if ended is None and seconds < part.limit:
                return False
            note = f"out of time after {seconds:.0f} s" if ended is None else f"its process ended with {ended}"
            for cell in left(part, read(results), here):
                state = "out of time" if ended is None else "failed"
                add(results, here | {"part": part.name, "cell": cell, "state": state, "values": {}, "error": note,
                                     "seconds": seconds, "date": today()})  # fmt: skip
                if ended is None:
                    break  # the cell that was at work; those behind it have a turn of their own
    return not any(left(part, read(results), here) for part in parts)


def today() -> str:
    """The date of a result."""
    return time.strftime("%Y-%m-%d")


def run_part(
    part: Part,
    cells: Sequence[str],
    results: Path,
    here: Mapping[str, Any],
    seconds: float,
    environment: Mapping[str, str],
) -> int | None:
    """A part's exit code, None where it ran out of time."""
    command = [sys.executable, "-m", "benchmarks.gpu.parts", part.name, str(results), json.dumps(here), *cells]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, process_group=0)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, in good order if it will."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE / 2)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.1)
    process.wait()


@contextlib.contextmanager
def brought(wheels: Path | None) -> Iterator[dict[str, str]]:
    """The environment of processes that find what wheels of a folder bring, as far as this Python lacks it."""
    if wheels is not None and not wheels.is_dir():
        sys.exit(f"{wheels}: found no folder, expected one with wheels")
    files = sorted(wheels.glob("*.whl")) if wheels else []
    brought_along = {path.name.split("-")[0].lower() for path in files}
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None and name not in brought_along]
    if missing:
        sys.exit(f"{', '.join(missing)}: not installed, nor in a folder of --wheels, which `make wheels` fills")
    lacking = [str(path) for path in files if _version(path.name.split("-")[0]) is None]
    with tempfile.TemporaryDirectory(prefix="tunecast-wheels-") as place:
        if lacking:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
            subprocess.run([*install, "--target", place, *lacking], check=True)
        search = [str(ROOT), place, *filter(None, [os.environ.get("PYTHONPATH")])]
        yield os.environ | {"PYTHONPATH": os.pathsep.join(search), "HF_HUB_OFFLINE": "1"}
