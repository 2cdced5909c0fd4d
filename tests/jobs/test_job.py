"""What a job's script does around its work: when garbage is collected, what its log says of time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import running

SCRIPT = """
from workflow.jobs.job import clock, job
import gc, sys
from types import SimpleNamespace

assert not gc.isenabled()
own = SimpleNamespace(log=[sys.argv[1]], input=[], wildcards={{"task": "t"}}, resources={{}}, config={{}})
with job("prepare", own) as log:
    assert gc.isenabled() and gc.get_freeze_count() > 0
    {work}
assert gc.get_freeze_count() > 1000
"""
CLOCK = re.compile(r" (\w+): (\d+\.\d\d) s after the process, (\d+\.\d\d) s of CPU$", re.MULTILINE)


def run(log: Path, work: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(work=work), str(log)]
    return subprocess.run(command, cwd=running.ROOT, capture_output=True, text=True)


def test_garbage_is_not_looked_for_while_a_job_starts_and_times_are_those_of_the_process(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = run(tmp_path / "log", "sum(range(3_000_000)); log.info('loaded: %s', clock())")
    whole = time.monotonic() - start
    assert ended.returncode == 0, ended.stderr
    found = CLOCK.findall((tmp_path / "log").read_text())
    assert [name for name, _, _ in found] == ["begun", "loaded", "ended"]
    ages, seconds = ([float(row[place]) for row in found] for place in (1, 2))
    assert ages == sorted(ages) and 0 < ages[-1] <= whole + 0.02  # the system notes starts in hundredths
    assert seconds == sorted(seconds) and seconds[1] > seconds[0]
    assert all(cpu <= age + 0.03 for age, cpu in zip(ages, seconds, strict=True))  # ages count in hundredths


@pytest.mark.parametrize(
    "work",
    [
        "held = b'x' * 300_000_000; del held",
        "import subprocess; subprocess.run([sys.executable, '-c', \"b'x' * 300_000_000\"])",
    ],
)
def test_a_log_has_the_peak_memory_of_the_job_and_of_what_it_started(work: str, tmp_path: Path) -> None:
    """300 MB that are given back, beside less than 150 MB of Python and what a job imports."""
    assert run(tmp_path / "log", work).returncode == 0
    [peak] = re.findall(r" peak memory: (\d+) MB$", (tmp_path / "log").read_text(), re.MULTILINE)
    assert 290 < int(peak) < 450


def test_a_failed_job_has_no_end_in_its_log(tmp_path: Path) -> None:
    ended = run(tmp_path / "log", "1 / 0")
    assert ended.returncode == 1 and "ZeroDivisionError" in ended.stderr and "Traceback" not in ended.stderr
    assert [name for name, _, _ in CLOCK.findall((tmp_path / "log").read_text())] == ["begun"]


ASK = "run fewer jobs at once, or request more (--set-resources prepare:mem_mb=MB)"
SHORT = {
    "raise MemoryError": f"out of memory (MemoryError); {ASK}",
    "bytearray(10**15)": f"out of memory (MemoryError); {ASK}",
    "raise RuntimeError('[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can\\'t allocate memory: you tried 9')": (
        f"out of memory ([enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory: you tried 9); {ASK}"
    ),
    "raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried to allocate 20.00 GiB.')": (
        f"out of memory (CUDA out of memory. Tried to allocate 20.00 GiB.); {ASK}"
    ),
    "raise OSError(28, 'No space left on device')": (
        "a file: No space left on device; free space there or move the study to a larger disk, then run again"
    ),
    "raise Exception('I/O error: Disk quota exceeded (os error 122)')": (
        "a file: Disk quota exceeded; delete files of your own there or ask for a larger quota, then run again"
    ),
    "raise OSError(30, 'x', 'results/a')": (
        "results/a: Read-only file system; make that disk writable or move the study to another, then run again"
    ),
    "raise KeyboardInterrupt": None,
}


@pytest.mark.parametrize(("work", "line"), SHORT.items())
def test_what_memory_or_a_disk_lacks_is_one_line_with_a_remedy(work: str, line: str | None, tmp_path: Path) -> None:
    """So is, in the log alone, Ctrl-C, of which Snakemake tells."""
    ended = run(tmp_path / "log", work)
    assert (ended.returncode, ended.stderr) == (1, f"prepare task=t: {line}\n" if line else "")
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.endswith(f" prepare task=t: {line or 'stopped by a signal; the same command starts it over'}")


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    ended = run(tmp_path / "logs" / "log", "pass")
    line = f"prepare task=t: {tmp_path}/logs: File exists; expected a file or folder that can be read and written\n"
    assert (ended.returncode, ended.stderr) == (1, line)
