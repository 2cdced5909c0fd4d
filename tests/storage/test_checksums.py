"""Checksums beside files and folders: what is damaged, exchanged, missing or foreign is noticed before it is used."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from workflow.errors import StudyError
from workflow.storage import checksums, files, tables


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study, in which the process runs; it has made nothing of anything."""
    monkeypatch.chdir(tmp_path)
    checksums.use([])
    return tmp_path


@pytest.fixture
def file() -> Path:
    """A file that a job has written."""
    path = Path("results/tables/scores.csv")
    files.write_text("a,b\n1,2\n", path)
    return path


@pytest.fixture
def folder() -> Path:
    """A folder that a job has written."""
    path = Path("resources/models/family=a/seed=0")
    with files.whole(path) as unfinished:
        (unfinished / "deep").mkdir(parents=True)
        (unfinished / "model.safetensors").write_bytes(b"weights")
        (unfinished / "deep" / "config.json").write_text("{}")
    return path


def refusal(path: Path) -> str:
    """What is said of a file or folder that is not as it was written."""
    with pytest.raises(StudyError) as told:
        checksums.check(path)
    return str(told.value)


def test_they_are_in_the_form_that_sha256sum_reads(file: Path, folder: Path) -> None:
    expected = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert checksums.place(file).read_text() == f"{expected}  scores.csv\n"
    for path in (file, folder):
        told = subprocess.run(
            ["sha256sum", "--check", checksums.place(path).name], cwd=path.parent, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stdout
    assert told.stdout.splitlines() == ["seed=0/deep/config.json: OK", "seed=0/model.safetensors: OK"]


def test_what_is_as_it_was_written_passes(file: Path, folder: Path) -> None:
    for path in (file, folder, folder / "model.safetensors", Path("elsewhere")):
        checksums.check(path)
    (folder / ".snakemake_timestamp").touch()
    checksums.check(folder)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_flipped_byte_names_the_file(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert refusal(file).startswith(f"{file}: does not match its checksum in {checksums.place(file)}")


def test_each_file_of_a_folder_counts(folder: Path) -> None:
    (folder / "deep" / "config.json").write_text("[]")
    assert refusal(folder).startswith(f"{folder}/deep/config.json: does not match")
    assert refusal(folder / "deep" / "config.json").startswith(f"{folder}/deep/config.json: does not match")
    checksums.check(folder / "model.safetensors")


def test_a_file_that_is_missing_or_more_counts(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert refusal(folder).startswith(f"{folder}/other.safetensors: does not match")
    (folder / "other.safetensors").unlink()
    assert refusal(folder).startswith(f"{folder}/model.safetensors: missing")


def test_a_damaged_list_is_told(file: Path) -> None:
    checksums.place(file).write_bytes(b"\xff\xfe\n")
    assert refusal(file).startswith(f"{checksums.place(file)}: not a list of checksums")


def test_a_sweep_finds_what_was_changed_whatever_its_date(file: Path) -> None:
    other = Path("results/other.csv")
    files.write_text("c\n", other)
    assert checksums.sweep() == []
    stat = file.stat()
    file.write_text("a,b\n1,3\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (told,) = checksums.sweep()
    assert told.startswith(f"{file}: does not match")


def test_a_sweep_reads_a_copied_file_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file)
    assert checksums.sweep() == []
    monkeypatch.setattr(checksums, "check", lambda path: pytest.fail("read again"))
    assert checksums.sweep() == []


# --- where results come from ------------------------------------------------------------------------------------------

ROW = {"test": "rte", "test_format": "default", "shots": 0, "metric": "accuracy", "value": 0.5, "n": 4}
KEYS = ["family", "step"]


def part(step: int, **facts: object) -> Path:
    """A part of scores."""
    path = Path(f"results/scores/family=a/step={step}/part.parquet")
    tables.write([ROW], tables.SCORES, path, family="a", step=str(step), **facts)
    return path


def gathered(*paths: Path) -> str:
    """What is said when parts are gathered that do not fit."""
    with pytest.raises(StudyError) as told:
        tables.gather(paths, KEYS, tables.SCORES)
    return str(told.value)


def test_a_part_in_the_place_of_another_is_told_even_with_its_checksum() -> None:
    first, second = part(1), part(2)
    assert len(tables.gather([first, second], KEYS, tables.SCORES)) == 2
    shutil.copy(first, second)
    assert gathered(first, second).startswith(f"{second}: does not match its checksum")
    shutil.copy(checksums.place(first), checksums.place(second))
    assert gathered(first, second).startswith(f"{second}: was made for step=1, so it belongs to another cell")


def test_a_part_that_was_made_of_what_is_no_longer_there_is_told() -> None:
    source = Path("results/predictions/part.parquet")
    files.write_text("old", source)
    checksums.use([str(source)])
    made = part(1)
    assert tables.recorded(made)["made_of"] == {str(source): checksums.summary(source)}
    files.write_text("new", source)
    assert gathered(made).startswith(f"{made}: was made from another version of {source}")
    files.write_text("old", source)
    assert len(tables.gather([made], KEYS, tables.SCORES)) == 1


def test_of_many_inputs_one_hash_is_noted() -> None:
    paths = [f"results/{number}.csv" for number in range(checksums.NAMED + 1)]
    for path in paths:
        files.write_text(path, Path(path))
    checksums.use(paths)
    ((name, noted),) = checksums.used().items()
    assert name == f"{len(paths)} files" and len(noted) == 64
