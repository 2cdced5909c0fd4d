"""Start the scripts of jobs in processes that have imported torch, transformers and other libraries already.

Importing them takes several seconds of CPU, longer than most predictions of a small model. A server (`fork_server`) imports them
once and forks for each job. The process of a job is a child of Snakemake, as it is without a server. Signals, exit codes,
memory limits, benchmarks and job locks therefore work alike, and a job outlives its server.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")
ADOPT_ORPHANS = 36  # prctl's PR_SET_CHILD_SUBREAPER

# What a server imports, by the conda environment of the rule: libraries that take long to import.
COMMON = ("numpy", "pandas", "pyarrow.parquet", "jsonschema", "snakemake.iocontainers", "snakemake.logging")
LIBRARIES = {
    "model": (*COMMON, "torch", "transformers", "peft"),
    "analysis": (*COMMON, "scipy.stats", "matplotlib.figure", "rouge_score.rouge_scorer"),
}
# Idle threads sleep. By default they wait actively, which takes several times as long where cores are shared.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}  # torch reads it when it is imported
THREADS = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")


class Server:
    """A fork server with some libraries, in an environment that its jobs share as far as libraries read it when imported."""

    def __init__(self, libraries: tuple[str, ...], environment: Mapping[str, str]) -> None:
        ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)
        self.lock = threading.Lock()
        requests, self.requests = os.pipe()
        answers, write = os.pipe()
        command = [sys.executable, str(SERVER), str(requests), str(write), *libraries]
        self.process = subprocess.Popen(command, env=environment, pass_fds=(requests, write))
        os.close(requests)
        os.close(write)
        self.answers = os.fdopen(answers, "rb")
        self.ready = self.answers.readline() == b"ready\n"

    def start(self, script: str, environment: Mapping[str, str]) -> int | None:
        """Start a script in the present working folder. Returns its process id, or None if the server has ended."""
        request = {"parent": os.getpid(), "environment": dict(environment), "folder": os.getcwd(), "script": script}
        with self.lock, contextlib.suppress(BrokenPipeError):
            os.write(self.requests, json.dumps(request).encode() + b"\n")
            return int(self.answers.readline() or 0) or None
        return None


@functools.cache
def _server(libraries: tuple[str, ...], threads: int) -> Server:
    """The server of this process for jobs with some libraries and number of threads."""
    return Server(libraries, _environment(threads, {}))


_starting = threading.Lock()


def start(script: str, kind: str, threads: int, environment: Mapping[str, str]) -> int | None:
    """Start a script as a child of this process, with the libraries of its kind imported. Returns its process id.

    kind: a key of LIBRARIES. None if it cannot be started this way: then it starts as without a server.
    """
    if kind not in LIBRARIES:
        return None
    with _starting:
        server = _server(LIBRARIES[kind], threads)
    return server.start(script, _environment(threads, environment)) if server.ready else None


def _environment(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that Snakemake gives to scripts, and what libraries read when they are imported."""
    return PASSIVE | os.environ | {f"{name}_NUM_THREADS": str(threads) for name in THREADS} | dict(environment)
