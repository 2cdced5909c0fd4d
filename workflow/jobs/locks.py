"""One process for a job: whoever begins a job anew takes it over from what an earlier run has left at work.

A killed Snakemake may leave jobs behind, in Slurm's queue among other places, and a node that was taken for lost may go on.
A file beside a job's log, which Snakemake would remove at each start, holds the claim of the process at work: the number of
its run of Snakemake, who and where it is. The process keeps the file locked. Another process of that run or of a later one
writes its own claim there and waits for the lock; the first notices, ends as by any SIGTERM, for which tuning saves its
state, and so gives way. A process of an earlier run than the claim's gives up, be the later one at work or done. A process
also ends when its Snakemake is gone. The kernel lifts a lock however its process ends, and a claim without a lock counts no
more than none; a process that has done its work leaves word of that in place of its claim.

Runs are numbered by the time at which they begin, but always beyond the last run in the study's folder, so that a clock that
goes back puts no run before an earlier one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from workflow.errors import StudyError
from workflow.storage.files import refusal, write_text

RUN = "TUNECAST_RUN"
PAUSE = 1.0  # seconds between two looks
CLAIM = re.compile(r"(?P<what>claim \w+|done) of run (?P<run>\d+), process \d+ on \S+\n")
LAST = Path("logs/.run")  # the number of the last run that began in a study's folder
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def begin() -> None:
    """Give this run of Snakemake its number, for it and for all jobs that inherit its environment."""
    if RUN not in os.environ:
        os.environ[RUN] = str(max(time.time_ns(), _last() + 1))


def note() -> None:
    """Have later runs in this study's folder be numbered beyond this one, which is about to start jobs."""
    if int(os.environ[RUN]) > _last():
        with contextlib.suppress(StudyError):  # a disk that is full is told by the first job
            write_text(f"{os.environ[RUN]}\n", LAST)


def _last() -> int:
    """The number of the last run in this study's folder; 0 where none is known."""
    with contextlib.suppress(OSError, ValueError):
        return int(LAST.read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def claimed(log: Path) -> Iterator[None]:
    """Be the one process at work on the job of a log; it is ended by SIGTERM when no longer wanted.

    Errors: StudyError when a later run of Snakemake, or another process while this one waits, has taken over the job.
    """
    owner = f"of run {os.environ.get(RUN, time.time_ns())}, {_process()}\n"
    claim, path, ended = f"claim {uuid.uuid4().hex} {owner}", place(log), threading.Event()
    with path.open("a", encoding="utf-8") as file:
        try:
            _take(path, file, claim)
        except OSError as error:
            raise (refusal(log, error) or error) from error
        watcher = threading.Thread(target=_watch, args=(path, claim, os.getppid(), ended), daemon=True)
        watcher.start()
        left = ""
        try:
            yield
            left = f"done {owner}"
        finally:
            ended.set()
            watcher.join()
            if _claim(path) == claim:
                with contextlib.suppress(OSError):  # work that is done stays done where this cannot be written
                    _write(file, left)


def place(log: Path) -> Path:
    """Where the claim on the job of a log is."""
    return log.with_name(f".{log.name}.claim")


def _process() -> str:
    """This process, as people find it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _take(path: Path, file: TextIO, claim: str) -> None:
    """Wait for the lock on a claim, its holder having been told to give way, and put one's own in its place."""
    found, free = _claim(path), _locked(file)
    if found and _run(found) > _run(claim) and (found.startswith("done") or not free):
        raise StudyError(
            f"{path}: a later run of Snakemake has begun this job anew or done it; if none has, remove this file"
        )
    if free is False:
        _write(file, claim)
    while free is False:
        time.sleep(PAUSE)
        free = _locked(file)
        if _claim(path) not in (claim, None):
            raise StudyError(f"{path}: found another process's claim while waiting for the one before")
    _write(file, claim)


def _write(file: TextIO, claim: str) -> None:
    """Put a claim in place of the one before."""
    file.truncate(0)
    file.write(claim)
    file.flush()


def _locked(file: TextIO) -> bool | None:
    """Whether the lock on a file is now this process's; None, and said so, where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        logging.getLogger("tunecast").warning("no locks on this file system: earlier jobs should have ended")
        return None
    return True


def _claim(path: Path) -> str | None:
    """The claim that a file holds, or the word of one that is done; None when there is neither, or half of it."""
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
        return line if CLAIM.fullmatch(line) else None
    return None


def _run(claim: str) -> int:
    """The number of the run of a claim."""
    return int(CLAIM.fullmatch(claim)["run"])  # type: ignore[index]


def _watch(path: Path, claim: str, parent: int, ended: threading.Event) -> None:
    """End this process by SIGTERM once its parent is gone or another process has claimed its job."""
    while not ended.wait(PAUSE):
        if os.getppid() != parent:
            reason = "its Snakemake is gone"
        elif _claim(path) not in (claim, None):
            reason = "another process has begun this job anew"
        else:
            continue
        logging.getLogger("tunecast").warning("%s stops: %s", _process(), reason)
        os.kill(os.getpid(), signal.SIGTERM)
        return
