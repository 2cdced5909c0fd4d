"""Errors that the user can fix: one line with the file, key or row, what was found and what is allowed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def escaped(text: str) -> str:
    """Text as one line without control characters.

    Names of files, tensors, branches and rows are foreign input. Line ends, control characters and marks that reverse the
    direction of writing are escaped as in Python's repr.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class StudyError(Exception):
    """An error in a config, row, checkpoint or folder that the user must fix; shown as one line without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class MistakesError(StudyError):
    """Several errors reported together, one line each, without duplicates."""

    def __init__(self, lines: Iterable[str]) -> None:
        Exception.__init__(self, "\n".join(dict.fromkeys(map(escaped, lines))))


@contextmanager
def row_named(row: str) -> Iterator[None]:
    """Prefix a StudyError raised inside with the row that it is about."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{row}: {error}") from error


class DivergedError(StudyError):
    """A fine-tuning whose loss or gradient diverged. history: its steps so far, with None for values that are not finite."""

    def __init__(self, message: str, history: list[dict[str, float | None]]) -> None:
        super().__init__(message)
        self.history = history


class StoppedError(StudyError):
    """A fine-tuning that received SIGTERM and saved its state."""


def told(error: BaseException) -> str | None:
    """The line for an error that the user can fix (in the study, memory, or a file that the system refuses); None for others."""
    if isinstance(error, StudyError):
        return str(error)
    if lacks_memory(error):
        return f"out of memory ({first_line(error)})"
    number, name = system_error(error), getattr(error, "filename", None)
    place = escaped(os.fsdecode(name)) if isinstance(name, str | bytes) else name
    if number in MEND:
        return f"{place or 'a file'}: {os.strerror(number)}; {mend(number)}"
    if isinstance(error, OSError) and place and error.strerror:
        return f"{place}: {error.strerror}; expected a file or folder that can be read and written"
    return None


# Remedies for a disk that refuses to write, by errno.
MEND = {
    errno.ENOSPC: "free space there or move the study to a larger disk, then",
    errno.EDQUOT: "delete files of your own there or ask for a larger quota, then",
    errno.EROFS: "make that disk writable or move the study to another, then",
    errno.EIO: "check that disk for faults, then",
}


def mend(number: int) -> str:
    """The remedy for an error of the system; the same command continues afterwards."""
    return f"{MEND.get(number, 'fix it, then')} run again"


def system_error(error: BaseException) -> int | None:
    """The errno of an OSError, or of an error of a library that quotes one; None for other errors."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    quoted = re.search(r"os error (\d+)", str(error))  # as safetensors and tokenizers write it
    return int(quoted[1]) if quoted else None


def lacks_memory(error: BaseException) -> bool:
    """Whether the machine or a GPU had no memory left; CPU allocators have no error class for it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return (
        named
        or system_error(error) == errno.ENOMEM
        or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))
    )


NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|bad_alloc", re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return escaped(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))


def shown(value: object) -> str:
    """A value as an error quotes it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
