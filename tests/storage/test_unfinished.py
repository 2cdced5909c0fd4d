"""Files are written whole, beside others that are being written to the same path; what killed processes left goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import running

from workflow.errors import StudyError
from workflow.storage import files

# Begins to write a folder and tells so; is killed, or finishes once the file `go` is there.
WRITER = """
import sys, time
from pathlib import Path
from workflow.storage.files import whole
with whole(Path("out")) as folder:
    folder.mkdir()
    (folder / sys.argv[1]).write_text("x")
    Path(f"begun-{sys.argv[1]}").touch()
    while not Path(f"go-{sys.argv[1]}").exists(): time.sleep(0.01)
"""


def writer(place: Path, name: str) -> subprocess.Popen[bytes]:
    """A process that has begun to write the folder `out` with a file of that name in it."""
    search = os.environ | {"PYTHONPATH": str(running.ROOT)}
    process = subprocess.Popen([sys.executable, "-c", WRITER, name], cwd=place, env=search)
    end = time.monotonic() + 20
    while not (place / f"begun-{name}").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    return process


def unfinished(place: Path) -> list[Path]:
    return sorted(place.glob(".out*.unfinished*"))


def test_two_processes_write_one_folder_and_the_last_to_finish_wins(tmp_path: Path) -> None:
    first, second = writer(tmp_path, "a"), writer(tmp_path, "b")
    assert len(unfinished(tmp_path)) == 2
    for name, process in (("b", second), ("a", first)):
        (tmp_path / f"go-{name}").touch()
        assert process.wait() == 0
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert unfinished(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    killed, living = writer(tmp_path, "a"), writer(tmp_path, "b")
    killed.kill()
    killed.wait()
    assert len(unfinished(tmp_path)) == 2
    with files.whole(tmp_path / "out") as own:
        own.mkdir()
        assert {path.name for folder in unfinished(tmp_path) for path in folder.iterdir()} == {"b"}
    (tmp_path / "go-b").touch()
    assert living.wait() == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]


@pytest.mark.parametrize(("days", "left"), [(1, True), (8, False)])
def test_of_another_machine_only_what_nobody_has_written_to_for_a_week_is_removed(
    tmp_path: Path, days: int, left: bool
) -> None:
    other = tmp_path / ".out.0000abcd-1-1.unfinished"
    other.mkdir()
    for path in (other / "weights", other):
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    files.write_text("x", tmp_path / "out")
    assert other.exists() == left


def test_another_path_s_files_are_not_touched(tmp_path: Path) -> None:
    """`out` is the beginning of `out.txt`, whose process 1 of this machine began at another time: it is no longer there."""
    machine = files.process_name().split("-")[0]
    for name in ("out.txt", "output", "o[u]t"):
        (tmp_path / f".{name}.{machine}-1-999999999.unfinished").touch()
    files.write_text("x", tmp_path / "o[u]t")
    assert {path.name.split(f".{machine}")[0] for path in tmp_path.glob(".*.unfinished")} == {".out.txt", ".output"}


def test_a_folder_in_place_of_a_file_stays_and_nothing_unfinished_is_left(tmp_path: Path) -> None:
    (tmp_path / "out/inside").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"out: cannot be written: Is a directory"):
        files.write_text("x", tmp_path / "out")
    assert (tmp_path / "out/inside").is_dir() and unfinished(tmp_path) == []
