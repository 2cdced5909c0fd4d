"""Files of a study: read with their place named where they are broken, written whole or not at all."""

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
    """A JSON object from a file.

    Errors: StudyError naming the file when it is not one, or not as a job wrote it.
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
    """Settings as they may be passed on: of each whole path, which tells of a machine and its owner, the last part alone."""
    if isinstance(settings, Mapping):
        return {key: portable(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [portable(value) for value in settings]
    is_whole = isinstance(settings, str) and Path(settings).is_absolute()
    return Path(settings).name if is_whole else settings


def csv_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header of a CSV file and its rows as text, blank lines left out; in UTF-8, which a byte-order mark may begin.

    Errors: StudyError naming the file, and the row where one has more or fewer cells than the header.
    """
    checksums.check(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [cells for cells in csv.reader(file, strict=True) if cells] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: not CSV in UTF-8: {error}") from error
    if not header:
        raise StudyError(f"{path}: is empty; expected CSV with a header")
    if again := [name for place, name in enumerate(header) if name in header[:place]]:
        raise StudyError(f"{path}: column {again[0]!r} appears twice; expected each name once")
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(header):
            raise StudyError(f"{path}, row {number}: found {len(cells)} cells, expected {len(header)} as in the header")
    return header, [dict(zip(header, cells, strict=True)) for cells in rows]


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(text: str) -> float:
    """A number as tables hold it, in a decimal point and maybe an exponent; NaN for any other text and for what is too large.

    Python reads more as numbers: `1_000`, digits of other scripts.
    """
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.nan
    return value if math.isfinite(value) else math.nan


def stated_number(found: Any) -> float:
    """A number that a table or JSON states, be it as text (see `number`); `nan` is one.

    Errors: ValueError or TypeError for anything else.
    """
    stated = isinstance(found, str) and found.strip().lower() != "nan"
    value = number(found) if stated else float(found)
    if isinstance(found, bool) or (stated and math.isnan(value)):
        raise ValueError("no number")
    return value


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with where it stands (`file, row 12`: the number of its line).

    Blank lines are passed over.
    Errors: StudyError for a line that is not a JSON object in UTF-8.
    """
    checksums.check(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield (place := f"{path}, row {number}"), _object(line, place)


def _object(line: bytes, place: str) -> dict[str, Any]:
    """The JSON object of a line."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise StudyError(f"{place}: not a JSON object in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise StudyError(f"{place}: found a JSON {type(row).__name__}, expected an object")
    return row


ROW_FILES = (".jsonl", ".parquet", ".csv")  # what rows are read from


def file_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file of JSON Lines, Parquet or CSV (all text), by its name's end; each with where it stands.

    Errors: StudyError naming the file, and the row where it is one.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".csv":
        for number, row in enumerate(csv_rows(path)[1], start=1):
            yield f"{path}, row {number}", row
    else:
        yield from json_lines(path)


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file, a batch in memory at a time; each with where it stands."""
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
    """PermissionError for the first file that may not be read: Snakemake reads each input and ends with a job that it cannot
    take note of."""
    for path in paths:
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def write_json(content: Mapping[str, Any] | Sequence[Any], path: Path) -> None:
    """Write a JSON file whole or not at all."""
    write_text(dumped(content), path)


def dumped(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """The text of a JSON file, the same for equal contents."""
    return json.dumps(content, indent=1, sort_keys=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path, sealed: bool = True) -> Iterator[Path]:
    """A place to write a file or a folder to, which becomes `path` when all went well and is gone when not.

    Its checksums are written beside it, if it is to be sealed (see `checksums`).

    Errors: StudyError naming the path and the system's reason, such as a full disk or a missing right.
    """
    with refusals(path), scratch(path) as unfinished:
        yield unfinished
        checksums.forget(path)
        _put(unfinished, path)
        if sealed:
            checksums.write(path)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file or folder of this process alone, which is removed at the end if it is still there.

    So processes that write to one path, such as those of two studies that share `resources`, do not disturb each other:
    the last to finish wins. What a killed process left behind is removed first, where that is safe (see `_abandoned`).
    """
    own = path.with_name(f".{path.name}.{process_name()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished*"):
        if _abandoned(left):
            with contextlib.suppress(OSError):  # another user's may not be ours to remove
                _remove(left)
    try:
        yield own
    finally:
        with contextlib.suppress(OSError):  # what could not be written may not be there to remove
            _remove(own)


def _put(unfinished: Path, path: Path) -> None:
    """Rename a finished file or folder to its path; a folder that is there is moved out of the way first."""
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
    """This process, as the names of its unfinished files have it: `<machine>-<process>-<start>`.

    The machine is a hash, since names are not to tell of it; processes are counted anew in each container.
    """
    counted = Path("/proc/self/ns/pid").readlink()
    machine = hashlib.sha256(f"{socket.gethostname()} {counted}".encode()).hexdigest()[:8]
    return f"{machine}-{os.getpid()}-{_started(os.getpid())}"


def _started(process: int) -> str:
    """When a process began, in the kernel's ticks; nothing where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _abandoned(left: Path) -> bool:
    """Whether nobody will finish an unfinished file or folder: its process, on this machine, is no longer there.

    Of another machine's processes nothing is known; theirs is abandoned when nothing was written to it for ABANDONED.
    """
    named = UNFINISHED.search(left.name)
    if named and named["machine"] == process_name().split("-")[0]:
        return _started(int(named["process"])) != named["start"]
    try:
        return max(path.stat().st_mtime for path in (left, *left.rglob("*"))) < time.time() - ABANDONED
    except FileNotFoundError:  # renamed meanwhile
        return False


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Inside, what the system refuses to write at a path or in a folder is a StudyError (see `refusal`)."""
    try:
        yield
    except BaseException as error:
        if refused := refusal(path, error):
            raise refused from error
        raise


def refusal(path: Path, error: BaseException) -> StudyError | None:
    """What to say where the system refuses to write a file, such as for a full disk; None for errors that are not its."""
    number = system_error(error)
    if number is None or lacks_memory(error):
        return None
    return StudyError(f"{path}: cannot be written: {os.strerror(number)}; {mend(number)}")


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
