"""One process for a job: whoever begins a job anew takes it over from what an earlier run has left at work.

A killed Snakemake may leave jobs behind, in Slurm's queue among other places, and a node that was taken for lost may go on.
A file beside a job's log, which Snakemake would remove at each start, holds the claim of the process at work: when its run
of Snakemake began, who and where it is. The process keeps the file locked. Another process of that run or of a later one
writes its own claim there and waits for the lock; the first notices, ends as by any SIGTERM, for which tuning saves its
state, and so gives way. A process of an earlier run than the claim's gives up. A process also ends when its Snakemake is
gone. The kernel lifts a lock however its process ends.
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
from workflow.files import refusal

RUN = "TUNECAST_RUN"
PAUSE = 1.0  # seconds between two looks
CLAIM = re.compile(r"claim \w+ of run (\d+), process \d+ on \S+\n")
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def begin() -> None:
    """Note when this run of Snakemake began, for it and for all jobs that inherit its environment."""
    os.environ.setdefault(RUN, str(time.time_ns()))


@contextlib.contextmanager
def claimed(log: Path) -> Iterator[None]:
    """Be the one process at work on the job of a log; it is ended by SIGTERM when no longer wanted.

    Errors: StudyError when a later run of Snakemake, or another process while this one waits, has taken over the job.
    """
    claim = f"claim {uuid.uuid4().hex} of run {os.environ.get(RUN, time.time_ns())}, {_process()}\n"
    path, ended = place(log), threading.Event()
    with path.open("a", encoding="utf-8") as file:
        try:
            _take(path, file, claim)
        except OSError as error:
            raise (refusal(log, error) or error) from error
        watcher = threading.Thread(target=_watch, args=(path, claim, os.getppid(), ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def place(log: Path) -> Path:
    """Where the claim on the job of a log is."""
    return log.with_name(f".{log.name}.claim")


def _process() -> str:
    """This process, as people find it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _take(path: Path, file: TextIO, claim: str) -> None:
    """Wait for the lock on a claim, its holder having been told to give way, and put one's own in its place."""
    found = _claim(path)
    if found and _run(found) > _run(claim):
        raise StudyError(f"{path}: found the claim of a later run of Snakemake; this job's own is gone")
    free = _locked(file)
    if not free:
        _write(file, claim)
    while not free:
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


def _locked(file: TextIO) -> bool:
    """Whether the lock on a file is now this process's; where the file system has none, so it is said."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        logging.getLogger("tunecast").warning("no locks on this file system: earlier jobs should have ended")
    return True


def _claim(path: Path) -> str | None:
    """The claim that a file holds; None when there is none, or half of one."""
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
        return line if CLAIM.fullmatch(line) else None
    return None


def _run(claim: str) -> int:
    """When the run of a claim began, in nanoseconds."""
    return int(CLAIM.fullmatch(claim)[1])  # type: ignore[index]


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
