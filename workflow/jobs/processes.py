"""Run a job's work in several processes on one machine: the parent's side (`models.process_group` has the children's side).

torchrun starts one process per GPU. Parent and children exchange files in a temporary folder: the work as JSON, then the
outcome. SIGTERM stops the children, and they also stop when their parent has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from workflow.errors import StudyError

Progress = Callable[[int, int], None]

LINE = re.compile(r"step (\d+) of (\d+)\n")
WORK, OUTCOME = "work.json", "outcome.json"
GRACE = "600"  # seconds between SIGTERM and the end, to save the state of a fine-tuning
PARENT_GONE = 1  # prctl's PR_SET_PDEATHSIG


class Outcome(NamedTuple):
    """How work ended: `done` with its rows, or another word with an error line."""

    end: str
    found: list[dict[str, Any]]
    error: str = ""


# The parent


def ended(module: str, work: Mapping[str, Any], number: int, folder: Path, progress: Progress | None = None) -> Outcome:
    """Run work in `number` processes and return its outcome.

    module: its `__main__` takes the folder, reads its `work` and has to `tell` the outcome; folder: is made, and left to
    the caller. A process that ends without success ends all of them.
    Errors: StudyError after SIGTERM; RuntimeError with the output of the processes when one ended unexpectedly.
    """
    folder.mkdir(parents=True)
    (folder / WORK).write_text(json.dumps(work), encoding="utf-8")
    with (folder / "written").open("w+", encoding="utf-8") as written:
        stopped = _run([module, str(folder), str(number)], written, progress)
        written.seek(0)
        told = written.read()
    if (folder / OUTCOME).is_file():
        return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    if stopped:
        raise StudyError("stopped by a signal; the same command starts it over")
    raise RuntimeError(f"one of {number} processes was killed or failed unexpectedly\n{told}")


def _run(arguments: list[str], written: IO[str], progress: Progress | None) -> bool:
    """Run the processes to their end and pass SIGTERM on; returns whether it was received."""
    package = str(Path(__file__).parents[2])
    search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A separate process group: Ctrl-C reaches the parent alone, which then stops the others in order.
    process = subprocess.Popen(
        [sys.executable, "-m", "workflow.jobs.processes", *arguments],
        stdout=subprocess.PIPE, stderr=written, text=True, env=os.environ | {"PYTHONPATH": search}, process_group=0,
    )  # fmt: skip
    stops: list[int] = []

    def stop(number: int, _: object) -> None:
        stops.append(number)
        process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for line in process.stdout or ():
            if (match := LINE.fullmatch(line)) and progress:
                progress(int(match[1]), int(match[2]))
        process.wait()
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)
    return bool(stops)


# The processes


def launch(module: str, folder: str, number: str) -> None:
    """Start the processes with torchrun."""
    from torch.distributed import run

    end_with_parent()
    run.main([
        "--standalone", "--nproc-per-node", number, "--shutdown-timeout", GRACE, "--module", module, folder,
    ])  # fmt: skip


def end_with_parent() -> None:
    """Send this process SIGTERM when the process that started it ends."""
    ctypes.CDLL(None).prctl(PARENT_GONE, signal.SIGTERM)


def work(folder: Path) -> dict[str, Any]:
    """The work that the parent wrote."""
    return json.loads((folder / WORK).read_text(encoding="utf-8"))


def printed(done: int, steps: int) -> None:
    """Report progress to the parent."""
    print(f"step {done} of {steps}", flush=True)


def tell(folder: Path, outcome: Outcome) -> None:
    """Write the outcome for the parent; if several processes do, the last one counts."""
    unfinished = folder / f".{OUTCOME}.{os.getpid()}"
    unfinished.write_text(json.dumps(outcome._asdict()), encoding="utf-8")
    unfinished.rename(folder / OUTCOME)


if __name__ == "__main__":
    launch(*sys.argv[1:])
