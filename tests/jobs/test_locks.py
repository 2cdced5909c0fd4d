"""One process for a job: an earlier one gives way or is waited for, one of an older run gives up, an orphan ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workflow.errors import StudyError
from workflow.jobs import locks

# A job of one loop, which writes its number and the word that it was ended by, if it was.
JOB = """
import logging, os, signal, sys, time
from pathlib import Path
from workflow.jobs import locks
locks.PAUSE = 0.05
log, told, name, deaf = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
def end(*_):
    time.sleep(deaf)  # what it takes to save a state
    with told.open("a") as file: file.write(f"{name} ended\\n")
    os._exit(3)
signal.signal(signal.SIGTERM, end)
logging.basicConfig(filename=log)
with locks.claimed(log):
    with told.open("a") as file: file.write(f"{name} works\\n")
    while not log.with_name("enough").exists(): time.sleep(0.01)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "job.log"


@pytest.fixture
def told(tmp_path: Path) -> Path:
    path = tmp_path / "told"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PAUSE", 0.02)


@pytest.fixture
def begun(log: Path, told: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts jobs of a run, by name, which are gone after the test."""
    jobs = []

    def begin(name: str, run: int, deaf: float = 0.0, *, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        command = [*before, sys.executable, "-c", JOB, str(log), str(told), name, str(deaf)]
        jobs.append(subprocess.Popen(command, env=os.environ | {locks.RUN: str(run)}, stderr=subprocess.PIPE))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()
        job.wait()


def wait_for(there: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def works(told: Path, name: str) -> Callable[[], bool]:
    return lambda: f"{name} works" in told.read_text().splitlines()


@pytest.mark.parametrize("later", [1, 2], ids=["the same run", "a later run"])
def test_a_job_begun_anew_works_once_the_earlier_has_ended_of_itself(
    begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path, later: int
) -> None:
    first = begun("first", 1, 0.5)
    wait_for(works(told, "first"), "the first")
    begun("second", later)
    wait_for(works(told, "second"), "the second")
    assert told.read_text().splitlines() == ["first works", "first ended", "second works"]
    assert first.wait() == 3
    assert f"of run {later}, " in locks.place(log).read_text()


@pytest.mark.parametrize("run", [1, 5, 9], ids=["an earlier run", "the same run", "a later run"])
def test_a_killed_holder_leaves_nothing_to_wait_for(
    begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun("first", 5)
    wait_for(works(told, "first"), "the first")
    first.kill()
    first.wait()
    monkeypatch.setenv(locks.RUN, str(run))
    with locks.claimed(log):
        assert told.read_text() == "first works\n"


def test_a_job_of_an_earlier_run_gives_up_be_the_later_one_at_work_or_done(
    begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path
) -> None:
    later = begun("later", 2)
    wait_for(works(told, "later"), "the later")
    for _ in ("at work", "done"):
        earlier = begun("earlier", 1)
        assert b"a later run of Snakemake has restarted or finished this job" in earlier.communicate()[1]
        assert earlier.returncode == 1
        assert told.read_text() == "later works\n"
        log.with_name("enough").touch()
        assert later.wait() == 0
    again = begun("again", 2)
    assert again.wait() == 0, "the same run may do its job once more"


def test_a_job_that_failed_is_nobody_s(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locks.RUN, "2")
    with pytest.raises(ZeroDivisionError), locks.claimed(log):
        assert locks.place(log).read_text().startswith("claim ")
        raise ZeroDivisionError
    assert locks.place(log).read_text() == ""
    monkeypatch.setenv(locks.RUN, "1")
    with locks.claimed(log):
        pass


def test_a_clock_that_goes_back_puts_no_run_before_an_earlier_one(
    log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a run with a clock a day ahead the jobs are done; the next one, with the right time, does them anew all the same."""
    monkeypatch.chdir(tmp_path)
    now = time.time_ns()
    numbers = []
    for clock in (now + 86400 * 10**9, now, now + 10**9):
        monkeypatch.delenv(locks.RUN, raising=False)
        monkeypatch.setattr(locks.time, "time_ns", lambda own=clock: own)
        locks.begin()
        locks.begin()  # as a dry run between does: only a run that starts jobs is noted
        locks.note()
        with locks.claimed(log):
            numbers.append(int(os.environ[locks.RUN]))
        assert locks.place(log).read_text().startswith(f"done of run {numbers[-1]}, ")
    assert numbers == [now + 86400 * 10**9, now + 86400 * 10**9 + 1, now + 86400 * 10**9 + 2]


def test_of_two_that_wait_the_last_to_come_works(
    begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path
) -> None:
    first = begun("first", 1, 2.0)
    wait_for(works(told, "first"), "the first")
    claim = locks.place(log).read_text()
    waiting = begun("waiting", 1)
    wait_for(lambda: locks.place(log).read_text() not in (claim, ""), "the claim of the second")
    begun("last", 1)
    wait_for(works(told, "last"), "the last")
    assert first.wait() == 3
    assert waiting.wait() == 1
    assert told.read_text().splitlines() == ["first works", "first ended", "last works"]


def test_a_job_whose_parent_is_gone_ends(begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path) -> None:
    parent = begun("orphan", 1, before=("sh", "-c", '"$@"; true', "sh"))
    wait_for(works(told, "orphan"), "the job")
    parent.send_signal(signal.SIGKILL)
    wait_for(lambda: "orphan ended" in told.read_text(), "the orphan's end")
    assert "stops: its Snakemake process has ended" in log.read_text()


def test_the_log_is_left_to_snakemake_which_removes_it(
    begun: Callable[..., subprocess.Popen[bytes]], log: Path, told: Path
) -> None:
    begun("later", 2)
    wait_for(works(told, "later"), "the later")
    log.unlink()
    earlier = begun("earlier", 1)
    assert b"a later run of Snakemake has restarted" in earlier.communicate()[1]


def test_another_claim_than_one_s_own_is_no_error_when_the_file_system_has_no_locks(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockless(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", lockless)
    with locks.claimed(log):
        pass
    assert "this file system has no locks" in caplog.text


def test_the_run_of_a_job_is_that_of_its_snakemake(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(locks.RUN, raising=False)
    locks.begin()
    began = os.environ[locks.RUN]
    locks.begin()  # as a job's own Snakemake does
    assert os.environ[locks.RUN] == began
    with locks.claimed(log):
        assert f"of run {began}, " in locks.place(log).read_text()
    monkeypatch.setenv(locks.RUN, str(int(began) - 1))
    with pytest.raises(StudyError, match="a later run"), locks.claimed(log):
        pass
