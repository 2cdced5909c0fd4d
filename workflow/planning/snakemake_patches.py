"""Wraps around methods of Snakemake. Versions outside SUPPORTED are left as they are.

- `limit_reevaluations`: while jobs wait for cores, Snakemake 9 starts one timer for each job that has ended. After a thousand
  jobs it checks for ready jobs a thousand times a second, which keeps a core busy. Upstream: snakemake/snakemake#2967.
- `remember`: Snakemake 9 opens a rule's script, and computes the signatures of its functions, again for each job, which is a
  quarter of a dry run. Upstream: snakemake/snakemake#1575, on slow dry runs, names neither.
- `before_dry_run`: Snakemake has no hook for a dry run, since `onstart` is called for real runs alone.
- `warm_start`: Snakemake starts a new Python for each script, which imports torch and transformers anew.
- `list_first`: `snakemake --list` sorts rules by their names, which buries the few targets that users ask for.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import snakemake
import snakemake.common
import snakemake.jobs
import snakemake.rules
from packaging.specifiers import SpecifierSet
from snakemake.api import Workflow
from snakemake.benchmark import BenchmarkRecord, benchmarked
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript
from snakemake.sourcecache import SourceCache

from workflow.jobs import warm_start as jobs

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

    _wrap(JobScheduler, REEVALUATE, wrap)


def remember() -> None:
    """Read each script, and the signature of each function of a rule, once in a process."""

    def place(original: Callable[[Any, Any], Path]) -> Callable[[Any, Any], Path]:
        @functools.wraps(original)
        def _cache(cache: Any, source: Any) -> Path:
            found = vars(cache).setdefault("places", {})
            name = source.get_path_or_uri(secret_free=True)
            if name not in found:
                found[name] = original(cache, source)
            return found[name]

        return _cache

    def content(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def open(cache: Any, source: Any, mode: str = "r") -> Any:
            if mode != "r":
                return original(cache, source, mode)
            found = vars(cache).setdefault("texts", {})
            name = source.get_path_or_uri(secret_free=True)
            if name not in found:
                with original(cache, source) as file:
                    found[name] = file.read()
            return io.StringIO(found[name])

        return open

    def signature(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        known: dict[Any, Any] = {}

        @functools.wraps(original)
        def get_function_params(function: Any) -> Any:
            # A bound method is made anew for each call; functions stay, so that none has the place of another.
            plain = getattr(function, "__func__", function)
            if not isinstance(plain, FunctionType):
                return original(function)
            cache_key = plain, plain is function
            if cache_key not in known:
                known[cache_key] = original(function)
            return known[cache_key]

        return get_function_params

    _wrap(SourceCache, "_cache", place)
    _wrap(SourceCache, "open", content)
    for module in (snakemake.common, snakemake.rules, snakemake.jobs):
        _wrap(module, "get_function_params", signature)


def before_dry_run(call: Callable[[], None]) -> None:
    """Run `call` before a dry run that finds jobs lists them."""

    def wrap(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(original)
        def schedule(scheduler: Any) -> Any:
            if scheduler.workflow.dryrun:
                call()
            return original(scheduler)

        return schedule

    _wrap(JobScheduler, "schedule", wrap)


def list_first(targets: Sequence[str]) -> None:
    """Begin the list of all rules (`--list`) with those that users ask for by name, in this order, under a heading."""

    def wrap(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def list_rules(workflow: Any, only_targets: bool = False) -> None:
            known = {rule.name: rule for rule in workflow.rules}
            print("Targets:")
            for name in filter(known.get, targets):
                print(f"{name} ({known[name].docstring})")
            print("\nAll rules:")
            original(workflow, only_targets)

        return list_rules

    _wrap(Workflow, "list_rules", wrap)


def warm_start(kind: Callable[[str], str]) -> None:
    """Start scripts that need no software deployment in processes that have imported their libraries (`jobs.warm_start`).

    kind: rule name -> key of `warm_start.LIBRARIES`, or another word for a rule whose script starts as ever.
    """

    def wrap(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def execute_script(script: Any, path: str, edit: bool = False) -> None:
            elsewhere = script.conda_env or script.container_img or script.env_modules or script.shadow_dir
            shell, folder = script.resources.get("shell_exec"), script.resources.get("tmpdir")
            process = None
            if not (elsewhere or shell):
                temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMPDIR", "TEMP"), folder) if folder else {}
                process = jobs.start(path, kind(script.rulename), script.threads, temporary)
            if process is None:
                original(script, path, edit)
            else:
                _wait(process, path, script.bench_record)

        return execute_script

    _wrap(PythonScript, "execute_script", wrap)


def _wait(process: int, path: str, record: BenchmarkRecord | None) -> None:
    """Wait for the process of a script, which Snakemake's benchmark observes. Errors: CalledProcessError, as in Snakemake."""
    with benchmarked(process, record) if record else contextlib.nullcontext():
        _, status = os.waitpid(process, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, f"{sys.executable} {path}")


def _wrap(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of a class, or a function of a module, by a wrap, if this version of Snakemake is supported and has it."""
    method = getattr(owner, name, None)
    if method is not None and snakemake.__version__ in SpecifierSet(SUPPORTED):
        setattr(owner, name, wrap(getattr(method, "__wrapped__", method)))


def _in_daemon_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a daemon thread and wait: a timer that it starts inherits this and does not delay the end of a run."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    thread.join()
