"""Job locks: at most one process works on a job, and the process of the latest run of Snakemake wins.

A killed Snakemake may leave jobs running or queued in Slurm, and a node that was considered lost may continue.
The file `.<log>.claim` beside a job's log holds the claim of the process that works on the job: the number of its run of
Snakemake, process id and host. (Snakemake would remove the log itself at each start.) The process keeps the file locked.
A process of the same or a later run writes its claim to the file and waits for the lock. The first process notices and ends
itself by SIGTERM; fine-tuning then saves its state. A process of an earlier run than the claim's stops with an error. A process
also ends itself when its Snakemake process has ended. The kernel releases the lock however the process ends, and a claim
without a lock is ignored. A process that finishes its job replaces its claim by a line that begins with `done`.

Runs are numbered by their start time, but always higher than the last run in the study's folder, in case the clock was set back.
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
PAUSE = 1.0  # seconds between two checks
CLAIM = re.compile(r"(?P<what>claim \w+|done) of run (?P<run>\d+), process \d+ on \S+\n")
LAST = Path("logs/.run")  # the number of the last run that began in a study's folder
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def begin() -> None:
    """Set the number of this run of Snakemake in the environment, which its jobs inherit."""
    if RUN not in os.environ:
        os.environ[RUN] = str(max(time.time_ns(), _last() + 1))


def note() -> None:
    """Record the number of this run, so that later runs in this study's folder get higher ones."""
    if int(os.environ[RUN]) > _last():
        with contextlib.suppress(StudyError):  # the first job reports a full disk
            write_text(f"{os.environ[RUN]}\n", LAST)


def _last() -> int:
    """The number of the last run in this study's folder; 0 if there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int(LAST.read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def claimed(log: Path) -> Iterator[None]:
    """Hold the lock on the job of a log; SIGTERM ends this process when another one takes the job over.

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
    """Path of the claim on the job of a log."""
    return log.with_name(f".{log.name}.claim")


def _process() -> str:
    """Process id and host of this process, as text."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _take(path: Path, file: TextIO, claim: str) -> None:
    """Write a claim, wait until the present holder releases the lock, and take the lock."""
    present, free = _claim(path), _locked(file)
    if present and _run(present) > _run(claim) and (present.startswith("done") or not free):
        raise StudyError(
            f"{path}: a later run of Snakemake has restarted or finished this job; if none has, delete this file"
        )
    if free is False:
        _write(file, claim)
    while free is False:
        time.sleep(PAUSE)
        free = _locked(file)
        if _claim(path) not in (claim, None):
            raise StudyError(f"{path}: another process took over this job while this one waited for the lock")
    _write(file, claim)


def _write(file: TextIO, claim: str) -> None:
    """Replace the claim in a file."""
    file.truncate(0)
    file.write(claim)
    file.flush()


def _locked(file: TextIO) -> bool | None:
    """Whether this process now holds the lock on a file; None, with a warning, if the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        logging.getLogger("tunecast").warning(
            "this file system has no locks: make sure that jobs of earlier runs have ended"
        )
        return None
    return True


def _claim(path: Path) -> str | None:
    """The claim or the `done` line in a file; None if there is none or it is incomplete."""
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
            reason = "its Snakemake process has ended"
        elif _claim(path) not in (claim, None):
            reason = "another process has restarted this job"
        else:
            continue
        logging.getLogger("tunecast").warning("%s stops: %s", _process(), reason)
        os.kill(os.getpid(), signal.SIGTERM)
        return
