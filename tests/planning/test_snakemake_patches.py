"""Wraps around methods of Snakemake, and the version guard."""

import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake
import snakemake.common
import snakemake.jobs
import snakemake.rules
from snakemake.api import Workflow
from snakemake.benchmark import BenchmarkRecord
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript
from snakemake.sourcecache import LocalSourceFile, SourceCache

from workflow.jobs import warm_start
from workflow.planning import snakemake_patches
from workflow.planning.snakemake_patches import REEVALUATE

MODULES = (snakemake.common, snakemake.rules, snakemake.jobs)
WRAPPED = (
    *((JobScheduler, REEVALUATE), (JobScheduler, "schedule"), (PythonScript, "execute_script")),
    *((SourceCache, "_cache"), (SourceCache, "open"), (Workflow, "list_rules")),
    *((module, "get_function_params") for module in MODULES),
)
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def unpatched(monkeypatch) -> None:
    """Each test begins with Snakemake's methods; what it wraps is undone after it."""
    for owner, name in WRAPPED:
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, getattr(method, "__wrapped__", method))


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
    methods = [getattr(owner, name) for owner, name in WRAPPED]
    monkeypatch.setattr(snakemake, "__version__", version)
    snakemake_patches.limit_reevaluations()
    snakemake_patches.before_dry_run(lambda: None)
    snakemake_patches.warm_start(lambda rule: "")
    snakemake_patches.remember()
    snakemake_patches.list_first([])
    changed = [getattr(owner, name) is not method for (owner, name), method in zip(WRAPPED, methods, strict=True)]
    assert changed == [wrapped] * len(WRAPPED)


@pytest.fixture
def script(monkeypatch, tmp_path) -> PythonScript:
    """The script of a rule `small`, of which a server imports nothing; `started` has what Snakemake itself would run."""
    monkeypatch.setitem(warm_start.LIBRARIES, "small", ())
    monkeypatch.setattr(PythonScript, "execute_script", lambda self, path, edit=False: self.started.append(path))
    made = PythonScript.__new__(PythonScript)
    made.conda_env = made.container_img = made.env_modules = made.shadow_dir = made.bench_record = None
    made.rulename, made.threads, made.resources, made.started = "small", 1, {"tmpdir": str(tmp_path)}, []
    snakemake_patches.warm_start(lambda rule: rule)
    return made


def test_scripts_run_in_children_and_their_failures_are_snakemake_s(script, tmp_path) -> None:
    """The error is the one that Snakemake raises for a command that failed."""
    path = tmp_path / "script.py"
    path.write_text(
        f"import os, sys; open({str(tmp_path / 'told')!r}, 'w').write(str([os.getppid(), os.environ['TMPDIR']]))"
    )
    script.execute_script(str(path))
    assert (tmp_path / "told").read_text() == str([os.getpid(), str(tmp_path)])
    path.write_text("raise SystemExit(4)")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        script.execute_script(str(path))
    assert (raised.value.returncode, raised.value.cmd) == (4, f"{sys.executable} {path}")
    assert script.started == []


def test_benchmarks_observe_the_process_of_the_script(script, tmp_path) -> None:
    """Memory and time are those of the job: it allocates and touches 200 MB and computes for longer than
    two looks of Snakemake's are apart."""
    path = tmp_path / "script.py"
    path.write_text("import time; held = b'x' * 200_000_000\nwhile time.process_time() < 1.5: pass")
    script.bench_record = BenchmarkRecord()
    script.execute_script(str(path))
    assert script.bench_record.max_rss > 190 and script.bench_record.running_time > 1.5


@pytest.mark.parametrize("key", ["conda_env", "container_img", "env_modules", "shadow_dir"])
def test_scripts_that_are_deployed_start_as_ever(script, key: str) -> None:
    setattr(script, key, "there")
    script.execute_script("path")
    assert script.started == ["path"]


def test_scripts_of_other_rules_and_shells_start_as_ever(script) -> None:
    script.rulename = "other"
    script.execute_script("path")
    script.rulename, script.resources = "small", {"shell_exec": "zsh"}
    script.execute_script("path")
    assert script.started == ["path", "path"]


def test_scheduler_without_the_method_is_left_as_it_is(monkeypatch) -> None:
    monkeypatch.delattr(JobScheduler, REEVALUATE)
    snakemake_patches.limit_reevaluations()
    assert not hasattr(JobScheduler, REEVALUATE)


def test_supported_versions_are_those_of_the_package() -> None:
    requirements = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert f"snakemake{snakemake_patches.SUPPORTED}" in requirements


# Read once


def test_a_script_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text for whoever asks, again and again; as bytes it is opened each time."""
    opened = []
    plain = SourceCache._open
    monkeypatch.setattr(SourceCache, "_open", lambda *own, **more: opened.append(own[1]) or plain(*own, **more))
    (tmp_path / "script.py").write_text("print('ä')\n", encoding="utf-8")
    source, cache = LocalSourceFile(str(tmp_path / "script.py")), SourceCache(tmp_path / "cache", tmp_path / "runtime")
    with cache.open(source) as one, cache.open(source) as other:
        before, read = len(opened), (one.read(), other.read())
    assert before == 3, "this Snakemake opens scripts once by itself: remove the wrap"
    snakemake_patches.remember()
    cache = SourceCache(tmp_path / "cache", tmp_path / "runtime")
    assert [cache.open(source).read() for _ in range(3)] == ["print('ä')\n"] * 3 and set(read) == {"print('ä')\n"}
    assert len(opened) == before + 1
    with cache.open(source, "rb") as file:
        assert file.read() == b"print('\xc3\xa4')\n"


def test_signatures_are_those_of_each_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of functions, methods and partial functions; computed once for each."""
    import functools
    import inspect

    class Owner:
        __hash__ = None

        def method(self, wildcards, input): ...

    def made(number):
        return lambda wildcards, attempt=number: attempt

    functions = [made(1), made(2), Owner.method, Owner().method, functools.partial(made(3), attempt=4), len]
    expected = [inspect.signature(function).parameters for function in functions]
    snakemake_patches.remember()
    computed = []
    plain = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda function: computed.append(function) or plain(function))
    for module in MODULES:
        for _ in range(2):
            assert [module.get_function_params(function) for function in functions] == expected
    assert len(computed) == len(MODULES) * (4 + 2 * 2)
