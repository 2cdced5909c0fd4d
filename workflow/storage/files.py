"""Reading files with errors that name the row, and writing files atomically."""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, first_line, lacks_memory, mend, system_error
from workflow.storage import checksums

UNFINISHED = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)\.unfinished")
ABANDONED = 7 * 24 * 3600  # seconds


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Errors: StudyError naming the file if it is not a JSON object.
    """
    checksums.check(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise StudyError(f"{path}: not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def portable(settings: Any) -> Any:
    """Settings that can be shared: absolute paths, which reveal a machine and its owner, are cut to their last part."""
    if isinstance(settings, Mapping):
        return {key: portable(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [portable(value) for value in settings]
    is_whole = isinstance(settings, str) and Path(settings).is_absolute()
    return Path(settings).name if is_whole else settings


def csv_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file as text, without blank lines. The encoding is UTF-8, with or without a byte-order mark.

    Errors: StudyError naming the file, and the row if it has more or fewer cells than the header.
    """
    checksums.check(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [cells for cells in csv.reader(file, strict=True) if cells] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: not CSV in UTF-8: {error}") from error
    if not header:
        raise StudyError(f"{path}: is empty; expected CSV with a header")
    if again := [name for index, name in enumerate(header) if name in header[:index]]:
        raise StudyError(f"{path}: column {again[0]!r} appears twice; expected each name once")
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(header):
            raise StudyError(f"{path}, row {number}: found {len(cells)} cells, expected {len(header)} as in the header")
    return header, [dict(zip(header, cells, strict=True)) for cells in rows]


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(text: str) -> float:
    """A number in a table, with a decimal point and optional exponent; NaN for any other text and for numbers that are too
    large.

    Python's `float` accepts more, such as `1_000` and digits of other scripts.
    """
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.nan
    return value if math.isfinite(value) else math.nan


def stated_number(stated: Any) -> float:
    """A number in a table or in JSON, also as text (see `number`); `nan` is allowed.

    Errors: ValueError or TypeError for anything else.
    """
    is_text = isinstance(stated, str) and stated.strip().lower() != "nan"
    value = number(stated) if is_text else float(stated)
    if isinstance(stated, bool) or (is_text and math.isnan(value)):
        raise ValueError("no number")
    return value


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with its position (`file, row 12`: the line number). Blank lines are skipped.

    Errors: StudyError for a line that is not a JSON object in UTF-8.
    """
    checksums.check(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield (row_name := f"{path}, row {number}"), _object(line, row_name)


def _object(line: bytes, row_name: str) -> dict[str, Any]:
    """The JSON object of a line."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise StudyError(f"{row_name}: not a JSON object in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise StudyError(f"{row_name}: found a JSON {type(row).__name__}, expected an object")
    return row


ROW_FILES = (".jsonl", ".parquet", ".csv")  # formats of rows


def file_rows(path: Path, typed: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSON Lines, Parquet or CSV file (CSV cells as text), each with its position; the suffix decides the
    format.

    typed: whether the columns of a CSV file get the types that `datasets` gives them.

    Errors: StudyError naming the file, and the row where one is to blame.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".csv":
        rows = csv_rows(path)[1]  # checked in either case
        for number, row in enumerate(_typed(path) if typed else rows, start=1):
            yield f"{path}, row {number}", row
    else:
        yield from json_lines(path)


def _typed(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file with the types that pandas finds in each column; a blank cell is None."""
    import pandas as pd

    table = pd.read_csv(path)
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file with their positions, one batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    checksums.check(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not readable Parquet: {first_line(error)}") from error


def check_readable(paths: Iterable[Path | str]) -> None:
    """Raise PermissionError for the first file that may not be read.

    Otherwise Snakemake, which reads each input, would end with an error of its own.
    """
    for path in paths:
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def write_json(content: Mapping[str, Any] | Sequence[Any], path: Path) -> None:
    """Write a JSON file atomically."""
    write_text(dumped(content), path)


def dumped(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """The text of a JSON file; equal contents give equal texts."""
    return json.dumps(content, indent=1, sort_keys=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path, sealed: bool = True) -> Iterator[Path]:
    """Context manager: a temporary path that becomes `path` on success and is removed on failure.

    If `sealed`, checksums are written beside it (see `checksums`). Errors: StudyError naming the path and the system's
    reason, such as a full disk or a missing permission.
    """
    with refusals(path), scratch(path) as unfinished:
        yield unfinished
        checksums.forget(path)
        _put(unfinished, path)
        if sealed:
            checksums.write(path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Context manager: a path beside `path` that only this process uses; it is removed at the end if it still exists.

    Processes that write to the same path, such as two studies that share `resources`, do not disturb each other: the last
    one to finish wins. Leftovers of killed processes are removed first if that is safe (see `_abandoned`).
    """
    unfinished = path.with_name(f".{path.name}.{process_name()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished*"):
        if _abandoned(left):
            with contextlib.suppress(OSError):  # files of another user cannot always be removed
                _remove(left)
    try:
        yield unfinished
    finally:
        with contextlib.suppress(OSError):  # a file that could not be written may not exist
            _remove(unfinished)


def _put(unfinished: Path, path: Path) -> None:
    """Rename a finished file or folder to its path; an existing folder is moved away first."""
    replaced = unfinished.with_name(f"{unfinished.name}.replaced")
    while True:
        try:
            os.replace(unfinished, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.replace(path, replaced)
        _remove(replaced)


def process_name() -> str:
    """Name of this process in the names of its temporary files: `<machine>-<process>-<start>`.

    The machine is a hash, so that its name is not revealed. Process numbers can repeat in containers.
    """
    counted = Path("/proc/self/ns/pid").readlink()
    machine = hashlib.sha256(f"{socket.gethostname()} {counted}".encode()).hexdigest()[:8]
    return f"{machine}-{os.getpid()}-{_started(os.getpid())}"


def _started(process: int) -> str:
    """Start time of a process in the kernel's ticks; empty if there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _abandoned(left: Path) -> bool:
    """Whether a temporary file or folder has no process left that would finish it.

    On this machine: its process has ended. Processes of other machines cannot be checked; their files count as abandoned if
    nothing was written for ABANDONED seconds.
    """
    named = UNFINISHED.search(left.name)
    if named and named["machine"] == process_name().split("-")[0]:
        return _started(int(named["process"])) != named["start"]
    try:
        return max(path.stat().st_mtime for path in (left, *left.rglob("*"))) < time.time() - ABANDONED
    except FileNotFoundError:  # renamed in the meantime
        return False


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Context manager: turn a refusal of the system to write into a StudyError (see `refusal`)."""
    try:
        yield
    except BaseException as error:
        if refused := refusal(path, error):
            raise refused from error
        raise


def refusal(path: Path, error: BaseException) -> StudyError | None:
    """StudyError for a refusal of the system to write a file, such as on a full disk; None for other errors."""
    number = system_error(error)
    if number is None or lacks_memory(error):
        return None
    return StudyError(f"{path}: cannot be written: {os.strerror(number)}; {mend(number)}")


def _remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
