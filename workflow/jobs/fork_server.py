"""A process that imports libraries once and forks for each job: `python fork_server.py REQUESTS ANSWERS MODULE ...`.

It reads requests from the descriptor REQUESTS, one JSON line for each job, and answers on ANSWERS with the process id of the job.
The job becomes a child of the process that started the server, with the environment and the working folder of its
request. The server ends with its requests. Jobs that run continue.

The server imports libraries only, and this file imports nothing of Tunecast: each job imports that itself, so that an edit of the
code takes effect in the next job.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import time
from typing import Any

from setproctitle import setproctitle

PAUSE = 0.001  # seconds between two looks at the parent


def serve(requests: int, answers: int, modules: list[str]) -> dict[str, Any]:
    """Import modules, then fork for each request. Only a job returns from here, with its request."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the jobs; the server ends with Snakemake
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    if _forks_lose_the_gpu():
        os._exit(1)
    gc.freeze()  # collecting garbage in a job would copy the memory that it shares with the server
    os.write(answers, b"ready\n")
    with os.fdopen(requests, "rb", buffering=0) as lines:
        for line in lines:
            request = json.loads(line)
            pid = _fork(request["parent"])
            if pid is None:
                signal.signal(signal.SIGINT, interrupt)
                os.close(answers)
                return request
            os.write(answers, b"%d\n" % pid)
    os._exit(0)


def _forks_lose_the_gpu() -> bool:
    """Whether a library has asked CUDA something when it was imported: torch then refuses the GPU in forks of this process."""
    if "torch" not in sys.modules:
        return False
    probe = os.fork()
    if probe == 0:
        os._exit(int(sys.modules["torch"].cuda._is_in_bad_fork()))
    return os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]) != 0


def _fork(parent: int) -> int | None:
    """Fork a process that `parent`, which adopts orphans, gets as a child. Returns its id, or None in the process itself."""
    read, write = os.pipe()
    between = os.fork()
    if between:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            pid = int(pipe.read())
        os.waitpid(between, 0)
        return pid
    between, pid = os.getpid(), os.fork()
    if pid:
        os.write(write, b"%d" % pid)
        os._exit(0)
    os.close(read)
    os.close(write)
    while os.getppid() == between:
        time.sleep(PAUSE)
    if os.getppid() != parent:
        os._exit(1)  # Snakemake has ended meanwhile
    return None


def become(request: dict[str, Any]) -> int:
    """Run the script of a request as a new Python would. Returns its exit code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    script = request["script"]
    setproctitle(f"{sys.executable} {script}")
    sys.argv = [script]
    sys.path.insert(0, os.path.dirname(script))
    gc.enable()
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # what Python itself does with an error that nothing caught
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(code: int) -> None:
    """End the process without destroying its objects: that would copy the memory that it shares with the server."""
    threading._shutdown()  # type: ignore[attr-defined]  # as at each end of Python: waits for threads, then calls what was registered
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    setproctitle(
        " ".join(["fork_server.py", *sys.argv[3:]])
    )  # titles can be set later only if one is set before the environment
    end(become(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
