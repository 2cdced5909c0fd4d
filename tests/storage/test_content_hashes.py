"""What files and code hold: hashes that know no date, no place and no comment."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from workflow.errors import StudyError
from workflow.models import checkpoints
from workflow.storage import content_hashes

CODE = '''"""What it is."""

import os  # for a reason


def twice(x: int) -> int:
    """The docstring."""
    # A comment.
    return 2 * x  # "another" 'one'


TASK = make(name="é # no comment", licence="CC BY", sizes={"train": 3})
'''


@pytest.fixture(autouse=True)
def in_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own with a memory that has seen nothing."""
    monkeypatch.chdir(tmp_path)
    memory = content_hashes.Memory(content_hashes.MEMORY)
    monkeypatch.setattr(content_hashes, "memory", lambda: memory)


def test_comments_docstrings_and_blank_lines_are_no_code() -> None:
    assert content_hashes.bare(CODE).splitlines() == [
        "import os",
        "def twice(x: int) -> int:",
        "    return 2 * x",
        'TASK = make(name="é # no comment", licence="CC BY", sizes={"train": 3})',
    ]


def test_a_comment_behind_the_end_of_a_long_string_is_cut_where_it_is() -> None:
    assert content_hashes.bare('A = """é\n b"""  # comment é\nB = 1\n') == 'A = """é\n b"""\nB = 1'


def test_arguments_that_do_not_count_are_cut() -> None:
    assert content_hashes.bare(CODE, ["licence", "sizes"]).splitlines()[-1] == 'TASK = make(name="é # no comment", )'


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A comment.", "Another comment.", True),
        ("The docstring.", "Other words.", True),
        ("\n\n\n", "\n", True),
        ("CC BY", "MIT", True),
        ("2 * x", "3 * x", False),
        ("no comment", "none", False),
        ("def twice", "def thrice", False),
    ],
)
def test_code_is_another_when_it_does_something_else(old: str, new: str, same: bool) -> None:
    assert old in CODE
    changed = CODE.replace(old, new)
    assert (content_hashes.bare(changed, ["licence"]) == content_hashes.bare(CODE, ["licence"])) == same


def test_a_file_is_told_by_its_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    os.utime(path, (0, 0))
    expected = hashlib.sha256(b"{}\n").hexdigest()
    assert content_hashes.of_file(path) == expected
    os.utime(path, (9, 9))
    assert content_hashes.of_file(path) == expected
    path.write_bytes(b"[]\n")
    os.utime(path, (0, 0))  # an older date than before
    assert content_hashes.of_file(path) != expected


def test_a_file_is_read_once_for_a_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    os.utime(path, (5, 5))
    first = content_hashes.of_file(path)
    content_hashes.memory().save()
    again = content_hashes.Memory(content_hashes.MEMORY)
    monkeypatch.setattr(content_hashes, "memory", lambda: again)
    monkeypatch.setattr(content_hashes, "digest", lambda path: pytest.fail("read again"))
    assert content_hashes.of_file(path) == first


def test_files_are_named_with_their_folder_wherever_it_lies(tmp_path: Path) -> None:
    for root in ("here", "there"):
        (tmp_path / root / "books").mkdir(parents=True)
        (tmp_path / root / "books" / "train.jsonl").write_text("text")
    here, there = (content_hashes.of_files([tmp_path / root / "books" / "train.jsonl"]) for root in ("here", "there"))
    assert here == there == {"books/train.jsonl": hashlib.sha256(b"text").hexdigest()}
    with pytest.raises(StudyError, match="appears twice"):
        content_hashes.of_files([tmp_path / root / "books" / "train.jsonl" for root in ("here", "there")])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The files of a checkpoint, as far as they matter here."""
    folder = tmp_path / "step1"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return sorted(folder.iterdir())


def recorded(files: list[Path], told: dict[str, object]) -> dict[str, object]:
    """The part of a base's manifest that counts here."""
    return {
        "files": {path.name: checkpoints.fingerprint(path) for path in files},
        "dates": {path.name: path.stat().st_mtime_ns for path in files},
        "contents": told,
    }


def test_a_checkpoint_is_the_same_before_and_after_it_was_fetched(files: list[Path]) -> None:
    before = content_hashes.of_checkpoint(files, None)
    assert before == {"config.json": 2, "model.safetensors": 7}
    assert content_hashes.of_checkpoint(files, recorded(files, before)) == before


def test_a_checkpoint_with_other_dates_is_the_same(files: list[Path]) -> None:
    manifest = recorded(files, {"config.json": 2, "model.safetensors": 7})
    for path in files:
        os.utime(path, (3, 3))
    assert content_hashes.of_checkpoint(files, manifest) == manifest["contents"]


def test_a_checkpoint_with_other_bytes_of_the_same_number_is_another_and_stays_it(files: list[Path]) -> None:
    manifest = recorded(files, {"config.json": 2, "model.safetensors": 7})
    files[1].write_bytes(b"WEIGHTS")
    os.utime(files[1], (3, 3))
    changed = content_hashes.of_checkpoint(files, manifest)
    assert changed == {"config.json": 2, "model.safetensors": hashlib.sha256(b"WEIGHTS").hexdigest()}
    assert content_hashes.of_checkpoint(files, recorded(files, changed)) == changed  # once it has been fetched


def test_a_file_more_makes_a_checkpoint_another(files: list[Path]) -> None:
    manifest = recorded(files[:1], {"config.json": 2})
    assert content_hashes.of_checkpoint(files, manifest) == {"config.json": 2, "model.safetensors": 7}
