"""Wraps around methods of Snakemake's scheduler, and the version guard."""

import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake
from snakemake.scheduling.job_scheduler import JobScheduler

from workflow.planning import snakemake_patches
from workflow.planning.snakemake_patches import REEVALUATE

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def unpatched(monkeypatch) -> None:
    """Each test begins with Snakemake's methods; what it wraps is undone after it."""
    for name in (REEVALUATE, "schedule"):
        method = getattr(JobScheduler, name)
        monkeypatch.setattr(JobScheduler, name, getattr(method, "__wrapped__", method))


def scheduler() -> JobScheduler:
    """A scheduler with nothing but its semaphore of checks."""
    made = JobScheduler.__new__(JobScheduler)
    made._open_jobs = threading.Semaphore(0)
    return made


def checked(scheduler: JobScheduler, seconds: float) -> bool:
    return scheduler._open_jobs.acquire(timeout=seconds)


def request(scheduler: JobScheduler, *delays: float) -> None:
    for delay in delays:
        getattr(scheduler, REEVALUATE)(delay)


def test_requests_that_wait_become_one_check() -> None:
    """With Snakemake's own scheduler: two requests are two checks before the wrap and one after it, again and again."""
    plain = scheduler()
    request(plain, 0.01, 0.01)
    assert checked(plain, 10) and checked(plain, 10), "this Snakemake drops requests by itself: remove the wrap"
    snakemake_patches.limit_reevaluations()
    wrapped = scheduler()
    for _ in range(2):
        request(wrapped, 0.1, 0.1, 0.1)
        assert checked(wrapped, 10) and not checked(wrapped, 0.3)


def test_sooner_request_is_kept() -> None:
    """A request that comes due before the one that waits is not dropped."""
    snakemake_patches.limit_reevaluations()
    wrapped = scheduler()
    request(wrapped, 60, 0.01)
    assert checked(wrapped, 10)


def test_waiting_request_does_not_hold_up_the_end() -> None:
    """Timers are daemon threads, so Python ends without waiting for them."""
    snakemake_patches.limit_reevaluations()
    before = set(threading.enumerate())
    request(scheduler(), 60)
    (timer,) = set(threading.enumerate()) - before
    assert isinstance(timer, threading.Timer) and timer.daemon


def test_dry_run_begins_with_the_last_call_alone(monkeypatch) -> None:
    """A Snakefile that is read twice wraps once; a real run is not announced."""
    monkeypatch.setattr(JobScheduler, "schedule", lambda self: said.append("schedule"))
    said: list[str] = []
    snakemake_patches.before_dry_run(lambda: said.append("first"))
    snakemake_patches.before_dry_run(lambda: said.append("second"))
    for dryrun in (True, False):
        run = scheduler()
        run.workflow = SimpleNamespace(dryrun=dryrun)
        run.schedule()
    assert said == ["second", "schedule", "schedule"]


@pytest.mark.parametrize(
    ("version", "wrapped"), [("9.13.7", False), ("9.14.0", True), ("9.99.1", True), ("10.0.0", False)]
)
def test_only_supported_versions_are_wrapped(monkeypatch, version: str, wrapped: bool) -> None:
    methods = [getattr(JobScheduler, name) for name in (REEVALUATE, "schedule")]
    monkeypatch.setattr(snakemake, "__version__", version)
    snakemake_patches.limit_reevaluations()
    snakemake_patches.before_dry_run(lambda: None)
    changed = [
        getattr(JobScheduler, name) is not method
        for name, method in zip((REEVALUATE, "schedule"), methods, strict=True)
    ]
    assert changed == [wrapped, wrapped]


def test_scheduler_without_the_method_is_left_as_it_is(monkeypatch) -> None:
    monkeypatch.delattr(JobScheduler, REEVALUATE)
    snakemake_patches.limit_reevaluations()
    assert not hasattr(JobScheduler, REEVALUATE)


def test_supported_versions_are_those_of_the_package() -> None:
    requirements = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"snakemake{snakemake_patches.SUPPORTED}" in requirements
