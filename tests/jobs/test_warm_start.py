"""Scripts that start in forks of a server behave as in a Python of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from workflow.jobs import warm_start

ROOT = Path(__file__).parents[2]
Server = warm_start.Server


@pytest.fixture(scope="module", autouse=True)
def interruptible() -> Iterator[None]:
    """Processes that tests start can be interrupted, even if the tests run in the background of a shell, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def server(interruptible: None) -> Iterator[Server]:
    """A server that has imported a module of the standard library which nothing else imports."""
    server = Server(("colorsys",), environment())
    yield server
    server.process.kill()
    server.process.wait()


def environment(**more: str) -> dict[str, str]:
    return dict(os.environ) | more


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Write a script and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def code(process: int | None) -> int:
    """The exit code of a job, which only its parent can learn."""
    assert process is not None
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pass", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('one line')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import threading, time, os; threading.Thread(target=lambda: (time.sleep(.2), os._exit(7))).start()", 7),
        ("import atexit, os; atexit.register(os._exit, 5)", 5),
    ],
)  # fmt: skip
def test_exit_codes_are_those_of_python(text: str, expected: int, server: Server, script: Callable[[str], str]) -> None:
    """Checked against a new Python that runs the same script."""
    path = script(text)
    assert subprocess.run([sys.executable, path], stderr=subprocess.DEVNULL, check=False).returncode == expected
    assert code(server.start(path, environment())) == expected


def test_errors_and_output_reach_the_terminal(tmp_path: Path, script: Callable[[str], str]) -> None:
    """What scripts print, their last line and their traceback, whole, in order."""
    path = script("import sys; print('printed', flush=True); sys.stderr.write('told '); sys.exit('one line')")
    client = "; ".join([
        "import os, sys", "from workflow.jobs.warm_start import Server", "server = Server((), dict(os.environ))",
        f"os.waitpid(server.start({path!r}, dict(os.environ)), 0)",
    ])  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", client], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("printed\n", "told one line\n")


def test_a_script_sees_what_a_new_python_shows_it(
    server: Server, script: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments, name, folders, environment, parent, title and handlers of signals."""
    shown = "[sys.argv, __name__, __file__, sys.path[0], os.getcwd(), os.environ['SEEN'], os.getppid(),"
    shown += " signal.getsignal(signal.SIGINT) is signal.default_int_handler, gc.isenabled(), sys.stdin.fileno()]"
    path = script(f"import gc, os, signal, sys; open('shown', 'w').write(repr({shown}))")
    monkeypatch.chdir(tmp_path)
    seen = environment(SEEN="now")
    assert code(server.start(path, seen)) == 0
    forked = (tmp_path / "shown").read_text()
    subprocess.run([sys.executable, path], env=seen, check=True)
    assert forked == (tmp_path / "shown").read_text()
    assert f", {os.getpid()}, True, True, 0]" in forked


def test_jobs_begin_with_the_libraries_and_without_tunecast(server: Server, script: Callable[[str], str]) -> None:
    path = script("import sys; sys.exit(10 * ('colorsys' in sys.modules) + ('workflow' in sys.modules))")
    assert code(server.start(path, environment())) == 10


def test_an_edit_takes_effect_in_the_next_job(server: Server, script: Callable[[str], str], tmp_path: Path) -> None:
    path = script("import sys, edited; sys.exit(edited.VALUE)")
    for value in (11, 12):
        (tmp_path / "edited.py").write_text(f"VALUE = {value}  # {'x' * value}\n")
        assert code(server.start(path, environment())) == value


def test_a_job_outlives_its_server_and_then_jobs_start_without(script: Callable[[str], str]) -> None:
    server = Server((), environment())
    process = server.start(script("import time, sys; time.sleep(1); sys.exit(9)"), environment())
    server.process.kill()
    server.process.wait()
    assert code(process) == 9
    assert server.start(script("pass"), environment()) is None


def test_a_library_that_cannot_be_imported_leaves_jobs_to_a_new_python() -> None:
    """The job itself then says what is missing."""
    server = Server(("no_such_library",), environment())
    assert not server.ready
    assert server.process.wait() == 1


@pytest.mark.parametrize("lost", [True, False])
def test_a_server_whose_forks_would_lose_the_gpu_is_not_used(lost: bool, tmp_path: Path) -> None:
    """A module takes torch's place: torch can be brought into that state only on a machine with a GPU."""
    text = f"import types; cuda = types.SimpleNamespace(_is_in_bad_fork=lambda: {lost})"
    (tmp_path / "torch.py").write_text(text, encoding="utf-8")
    server = Server(("torch",), environment(PYTHONPATH=str(tmp_path)))
    assert server.ready is not lost


def test_ctrl_c_interrupts_jobs_and_leaves_the_server(
    server: Server, script: Callable[[str], str], tmp_path: Path
) -> None:
    process = server.start(
        script(f"import time; open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(60)"), environment()
    )
    _until((tmp_path / "begun").exists)
    for number in (server.process.pid, process):
        os.kill(number, signal.SIGINT)
    assert code(process) == 1  # KeyboardInterrupt with its traceback; a new Python would end by the signal
    assert code(server.start(script("pass"), environment())) == 0


def test_the_title_of_a_process_names_its_script(server: Server, script: Callable[[str], str]) -> None:
    path = script("import time; time.sleep(60)")
    process = server.start(path, environment())
    _until(lambda: path in " ".join(psutil.Process(process).cmdline()))
    os.kill(process, signal.SIGKILL)
    assert code(process) == -signal.SIGKILL


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """However that ends: here by SIGKILL."""
    client = "\n".join([
        "import os, time", "from workflow.jobs.warm_start import Server", "server = Server((), dict(os.environ))",
        f"open({str(tmp_path / 'server')!r}, 'w').write(str(server.process.pid))", "time.sleep(60)",
    ])  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", client], cwd=ROOT)
    _until(lambda: (tmp_path / "server").is_file() and (tmp_path / "server").read_text())
    server = psutil.Process(int((tmp_path / "server").read_text()))
    parent.kill()
    parent.wait()
    _until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_what_servers_import_exists() -> None:
    """Each server imports its libraries, and none of Tunecast; jobs of both kinds get the threads they ask for."""
    for kind, libraries in warm_start.LIBRARIES.items():
        assert not [library for library in libraries if library.startswith("workflow")]
        assert Server(libraries, environment()).ready, kind


def test_rules_of_an_unknown_kind_start_without_a_server(script: Callable[[str], str]) -> None:
    assert warm_start.start(script("pass"), "", 1, {}) is None


def test_the_number_of_threads_is_that_of_the_job(script: Callable[[str], str], tmp_path: Path, monkeypatch) -> None:
    """As Snakemake sets it, for jobs of different sizes side by side."""
    monkeypatch.setitem(warm_start.LIBRARIES, "small", ())
    path = script(
        f"import os, sys; open({str(tmp_path)!r} + '/' + os.environ['OMP_NUM_THREADS'], 'w').write(os.environ['TMPDIR'])"
    )
    for threads in (1, 3):
        assert code(warm_start.start(path, "small", threads, {"TMPDIR": f"folder {threads}"})) == 0
        assert (tmp_path / str(threads)).read_text() == f"folder {threads}"


def _until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
