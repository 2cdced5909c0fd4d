"""Two wraps around methods of Snakemake's scheduler. Versions outside SUPPORTED are left as they are.

- `limit_reevaluations`: while jobs wait for cores, Snakemake 9 starts one timer for each job that has ended. After a thousand
  jobs it checks for ready jobs a thousand times a second, which keeps a core busy. Upstream: snakemake/snakemake#2967.
- `before_dry_run`: Snakemake has no hook for a dry run, since `onstart` is called for real runs alone.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import snakemake
from packaging.specifiers import SpecifierSet
from snakemake.scheduling.job_scheduler import JobScheduler

SUPPORTED = ">=9.14,<10"  # versions whose scheduler was read and tested; the same range as in pyproject.toml
REEVALUATE = "_schedule_reevalutation"  # Snakemake's spelling


def limit_reevaluations() -> None:
    """Drop requests to look for ready jobs while an earlier request comes due at least as soon."""

    def wrap(original: Callable[[Any, float], None]) -> Callable[[Any, float], None]:
        @functools.wraps(original)
        def reevaluate(scheduler: Any, delay: float) -> None:
            now, due = time.monotonic(), getattr(scheduler, "reevaluation_due", 0.0)
            if now < due <= now + delay:
                return
            scheduler.reevaluation_due = now + delay
            _in_daemon_thread(original, scheduler, delay)

        return reevaluate

    _wrap(REEVALUATE, wrap)


def before_dry_run(call: Callable[[], None]) -> None:
    """Run `call` before a dry run that finds jobs lists them."""

    def wrap(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(original)
        def schedule(scheduler: Any) -> Any:
            if scheduler.workflow.dryrun:
                call()
            return original(scheduler)

        return schedule

    _wrap("schedule", wrap)


def _wrap(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of the scheduler by a wrap of the original, if this version of Snakemake is supported and has it."""
    method = getattr(JobScheduler, name, None)
    if method is not None and snakemake.__version__ in SpecifierSet(SUPPORTED):
        setattr(JobScheduler, name, wrap(getattr(method, "__wrapped__", method)))


def _in_daemon_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a daemon thread and wait: a timer that it starts inherits this and does not delay the end of a run."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    thread.join()
