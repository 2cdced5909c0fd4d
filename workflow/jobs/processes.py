"""Work that several processes of one machine do together, as their parent sees it.

`models.process_group` has what one of them sees.

torchrun starts them, each for a GPU of its own. What goes between them and their parent lies in a folder that is there as
long as they are: the work as JSON, then its outcome. They are told to stop by SIGTERM, and are when their parent is gone.
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
GRACE = "600"  # seconds in which processes that are told to stop may save their state
PARENT_GONE = 1  # prctl's PR_SET_PDEATHSIG


class Outcome(NamedTuple):
    """How work ended: `done` with the rows it found, or another word with a line that says why."""

    end: str
    found: list[dict[str, Any]]
    error: str = ""


# The parent


def ended(module: str, work: Mapping[str, Any], number: int, folder: Path, progress: Progress | None = None) -> Outcome:
    """The outcome of work that so many processes have done.

    module: its `__main__` takes the folder, reads its `work` and has to `tell` the outcome; folder: is made, and left to
    the caller. A process that ends without success ends all of them.
    Errors: StudyError when told to stop; RuntimeError with what they wrote for people when one ended unforeseen.
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
        raise StudyError("told to stop; the same command begins it anew")
    raise RuntimeError(f"one of {number} processes was killed, or failed for a reason not foreseen\n{told}")


def _run(arguments: list[str], written: IO[str], progress: Progress | None) -> bool:
    """Run the processes to their end, passing SIGTERM on; returns whether it came."""
    package = str(Path(__file__).parents[2])
    search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A group of its own: Ctrl-C reaches the parent alone, which has all of them stop in good order.
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
            if (found := LINE.fullmatch(line)) and progress:
                progress(int(found[1]), int(found[2]))
        process.wait()
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)
    return bool(stops)


# The processes


def launch(module: str, folder: str, number: str) -> None:
    """Be torchrun for the processes."""
    from torch.distributed import run

    end_with_parent()
    run.main([
        "--standalone", "--nproc-per-node", number, "--shutdown-timeout", GRACE, "--module", module, folder,
    ])  # fmt: skip


def end_with_parent() -> None:
    """Have this process told to stop when the one that started it is gone."""
    ctypes.CDLL(None).prctl(PARENT_GONE, signal.SIGTERM)


def work(folder: Path) -> dict[str, Any]:
    """The work that is to be done."""
    return json.loads((folder / WORK).read_text(encoding="utf-8"))


def printed(done: int, steps: int) -> None:
    """Tell the parent how far the work has come."""
    print(f"step {done} of {steps}", flush=True)


def tell(folder: Path, outcome: Outcome) -> None:
    """Tell the parent how the work ended; of several processes that do, one is heard."""
    unfinished = folder / f".{OUTCOME}.{os.getpid()}"
    unfinished.write_text(json.dumps(outcome._asdict()), encoding="utf-8")
    unfinished.rename(folder / OUTCOME)


if __name__ == "__main__":
    launch(*sys.argv[1:])
