"""What every rule's script does around its work: a log, progress, and errors a person can read."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workflow import registry
from workflow.errors import escaped, first_line, lacks_memory, told
from workflow.jobs import devices, locks
from workflow.storage import checksums

# Imports make some hundred thousand objects, none of them garbage: looking for it takes a fifth of a job's start. Scripts
# therefore import this module first; `job` turns the search on again.
gc.disable()

# A thread that has nothing to do leaves its core to others until there is: threads that wait for each other at work, as is
# the default, take several times as long where a core is shared. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What needs less memory, by rule.
LESS = {
    "pretrain": "lower batch or sequence of the pre-training",
    "tune": "lower max_tokens of the recipe, spread it over more gpus, or tune by lora",
    "try_rate": "lower max_tokens of the recipe, spread it over more gpus, or tune by lora",
    "predict": "lower batch_tokens of the suite, or spread it over more gpus",
    "measure": "lower batch_tokens of the indicators",
}
LINES = 20  # progress lines of a long loop in a log


@contextlib.contextmanager
def job(rule: str, snakemake: Any) -> Iterator[logging.Logger]:
    """Run a script's work with a logger that writes to its log file, on a GPU of its own if it asks for one's memory.

    No other process works on the same job meanwhile (see `locks`). A StudyError ends the job with its one line, here and
    in the log, as does a file that the system refuses; any other error leaves its traceback in the log and one line that
    names the log. Exit code 1 for all.
    """
    log = Path(snakemake.log[0])
    place = " ".join([rule, *(f"{key}={value}" for key, value in snakemake.wildcards.items())])
    try:
        logger = _logger(log)
    except OSError as error:
        sys.exit(f"{place}: {told(error) or error}")
    registry.declare(snakemake.config)
    asked, begun = snakemake.resources.get, clock()
    gc.freeze()
    gc.enable()
    try:
        with locks.claimed(log), devices.own(asked("gpu_mem_mb", 0), asked("gpu", 1)):
            logger.info("begun: %s", begun)
            checksums.use(snakemake.input)
            yield logger
        logger.info("ended: %s", clock())
    except Exception as error:  # the outermost frame of a job: whatever was not foreseen goes to its log
        line = told(error)
        if lacks_memory(error):
            line = f"{line}; {LESS.get(rule, 'run fewer jobs at once')}, or ask for more (--set-resources {rule}:mem_mb=MB)"
        if line is None:
            logger.error("%s", traceback.format_exc())
            line = f"{type(error).__name__}: {first_line(error)}; see {log}"
        logger.error("%s: %s", place, line)
        # In one piece, since jobs that run side by side write to one terminal.
        sys.stderr.write(f"{place}: {line}\n")
        sys.stderr.flush()
        sys.exit(1)
    except KeyboardInterrupt:
        logger.error("%s: told to stop; the same command begins it anew", place)
        sys.exit(1)
    finally:
        # Before it ends, Python looks for garbage once more among all that was imported: a second for transformers.
        gc.freeze()


def clock() -> str:
    """How long the process has run and computed, for logs: `benchmarks/study.py` reads it there."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return f"{age:.2f} s after the process, {time.process_time():.2f} s of CPU"


class Printable(logging.Formatter):
    """Lines in which nothing moves a terminal's cursor, whatever names of others a library's warning quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with what a terminal would obey escaped."""
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
    logging.raiseExceptions = False  # a log that a full disk refuses must not hide the line that says so
    logger = logging.getLogger("tunecast")
    logger.setLevel(logging.INFO)
    return logger


def progress(logger: logging.Logger, label: str) -> Callable[[int, int], None]:
    """A callback `(done, total)`: a bar on a terminal, and some twenty plain lines in the log."""
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
