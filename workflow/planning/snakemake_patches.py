"""Snakemake's scheduler, kept from asking ever more often which jobs may start; and what a dry run says of a study.

Where jobs wait for cores, Snakemake 9 asks again after a second, for each job that has ended since: after a thousand jobs a
thousand times a second, which takes its process a core and more (snakemake/snakemake#2967).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from snakemake.scheduling.job_scheduler import JobScheduler

ASKED_AGAIN = "_schedule_reevalutation"  # as Snakemake spells it


def steady() -> None:
    """Let one question at a time wait for its moment, and none of them hold up the end of a run.

    A Snakemake without that method asks in another way and is left as it is.
    """
    if hasattr(JobScheduler, ASKED_AGAIN):
        setattr(JobScheduler, ASKED_AGAIN, _ask_later)


def before_dry_run(say: Callable[[], None]) -> None:
    """Have a dry run that finds jobs begin with a call, for which Snakemake has no hook: `onstart` is for runs alone."""
    schedule = getattr(JobScheduler.schedule, "__wrapped__", JobScheduler.schedule)

    @functools.wraps(schedule)
    def scheduled(scheduler: Any) -> Any:
        if scheduler.workflow.dryrun:
            say()
        return schedule(scheduler)

    JobScheduler.schedule = scheduled


def _ask_later(scheduler: Any, delay: float) -> None:
    """Have a scheduler look at its ready jobs in some seconds, unless it will do so anyway."""
    if getattr(scheduler, "question", None):
        return

    def ask() -> None:
        scheduler.question = None  # first, since what it wakes may want the next question at once
        scheduler._open_jobs.release()

    scheduler.question = threading.Timer(delay, ask)
    scheduler.question.daemon = True
    scheduler.question.start()
