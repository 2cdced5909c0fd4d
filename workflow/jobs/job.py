"""The frame of every rule's script: log, progress, and errors as one readable line."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workflow import registry
from workflow.errors import escaped, first_line, lacks_memory, told
from workflow.jobs import devices, locks, warm_start
from workflow.storage import checksums

# Imports make some hundred thousand objects, none of them garbage: collecting it takes a fifth of a job's start.
# Scripts therefore import this module first; `job` turns the garbage collector on again.
gc.disable()

for variable, value in warm_start.PASSIVE.items():  # before torch is imported
    os.environ.setdefault(variable, value)

# How to use less memory, by rule.
LESS = {
    "pretrain": "lower `batch` or `sequence` of the pre-training",
    "tune": "lower `max_tokens` or raise `gpus` of the recipe, or use `method: lora`",
    "try_rate": "lower `max_tokens` or raise `gpus` of the recipe, or use `method: lora`",
    "predict": "lower `batch_tokens` or raise `gpus` of the suite",
    "measure": "lower `batch_tokens` of the indicators",
}
LINES = 20  # progress lines of a long loop in a log


@contextlib.contextmanager
def job(rule: str, snakemake: Any) -> Iterator[logging.Logger]:
    """Run a script's work with a logger for its log file, on a reserved GPU if the rule asks for GPU memory.

    No other process works on the same job meanwhile (see `locks`). A StudyError, and a file that the system refuses, end the
    job with one line on the terminal and in the log. Any other error leaves its traceback in the log and one line with the
    path of the log on the terminal. The exit code is 1 in each case.
    """
    log = Path(snakemake.log[0])
    job_name = " ".join([rule, *(f"{key}={value}" for key, value in snakemake.wildcards.items())])
    try:
        logger = _logger(log)
    except OSError as error:
        sys.exit(f"{job_name}: {told(error) or error}")
    registry.declare(snakemake.config)
    asked, begun = snakemake.resources.get, clock()
    gc.freeze()
    gc.enable()
    try:
        with locks.claimed(log), devices.own(asked("gpu_mem_mb", 0), asked("gpu", 1)):
            logger.info("begun: %s", begun)
            checksums.use(snakemake.input)
            yield logger
        logger.info("peak memory: %.0f MB", peak_memory())
        logger.info("ended: %s", clock())
    except Exception as error:  # the outermost frame of a job: unexpected errors go to its log
        line = told(error)
        if lacks_memory(error):
            line = f"{line}; {LESS.get(rule, 'run fewer jobs at once')}, or request more (--set-resources {rule}:mem_mb=MB)"
        if line is None:
            logger.error("%s", traceback.format_exc())
            line = f"{type(error).__name__}: {first_line(error)}; see {log}"
        logger.error("%s: %s", job_name, line)
        # In one piece, since jobs that run side by side write to one terminal.
        sys.stderr.write(f"{job_name}: {line}\n")
        sys.stderr.flush()
        sys.exit(1)
    except KeyboardInterrupt:
        logger.error("%s: stopped by a signal; the same command starts it over", job_name)
        sys.exit(1)
    finally:
        # Python collects garbage once more at its end, which takes a second with transformers imported.
        gc.freeze()


def clock() -> str:
    """How long the process has run and computed, for logs: `benchmarks/study.py` reads it there."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return f"{age:.2f} s after the process, {time.process_time():.2f} s of CPU"


def peak_memory() -> float:
    """The largest resident memory of this process, or of one that it has started and that has ended, in MB.

    Not `ru_maxrss` of this process, which keeps the memory of the process that started it.
    """
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return max(int(kilobytes), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


class Printable(logging.Formatter):
    """Log lines with control characters escaped, since warnings of libraries quote foreign names."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines with control characters escaped."""
        return "\n".join(map(escaped, super().format(record).split("\n")))


def _logger(path: Path) -> logging.Logger:
    """Logger that adds to the job's log file; libraries' warnings go there too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bars follow it as well
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(Printable("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # if a full disk refuses the log, the error line must still be printed
    logger = logging.getLogger("tunecast")
    logger.setLevel(logging.INFO)
    return logger


def progress(logger: logging.Logger, label: str) -> Callable[[int, int], None]:
    """A callback `(done, total)`: a progress bar on a terminal and about LINES lines in the log."""
    from tqdm import tqdm

    bar = tqdm(desc=label, disable=not sys.stderr.isatty(), leave=False)
    seen = {"share": -1}

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        share = done * LINES // max(1, total)
        if share != seen["share"]:
            seen["share"] = share
            logger.info("%s: %d of %d", label, done, total)

    return report
