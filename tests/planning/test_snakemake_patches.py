"""The scheduler's questions which jobs may start."""

import threading

from snakemake.scheduling.job_scheduler import JobScheduler

from workflow.planning import snakemake_patches


def asked(scheduler: JobScheduler, seconds: float) -> bool:
    return scheduler._open_jobs.acquire(timeout=seconds)


def test_one_question_waits_at_a_time(monkeypatch) -> None:
    """Of Snakemake's own scheduler: three wishes to be asked again are one question; after it there may be the next."""
    monkeypatch.setattr(
        JobScheduler, snakemake_patches.ASKED_AGAIN, getattr(JobScheduler, snakemake_patches.ASKED_AGAIN)
    )
    scheduler = JobScheduler.__new__(JobScheduler)
    scheduler._open_jobs = threading.Semaphore(0)
    ask = getattr(scheduler, snakemake_patches.ASKED_AGAIN)
    ask(0.01), ask(0.01)
    assert asked(scheduler, 10) and asked(scheduler, 10), "this Snakemake asks once by itself: the module can go"
    snakemake_patches.steady()
    ask = getattr(scheduler, snakemake_patches.ASKED_AGAIN)
    for _ in range(2):
        ask(0.01), ask(0.01), ask(0.01)
        assert asked(scheduler, 10) and not asked(scheduler, 0.2)
