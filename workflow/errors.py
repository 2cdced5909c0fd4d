"""The errors that are the user's to mend: each is one line that names the place, the finding and what is allowed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def escaped(text: str) -> str:
    """Text as one line that a terminal prints and does not obey.

    Names of files, tensors, branches and rows come from others. Line ends, control characters and marks that reverse the
    direction of writing are escaped as Python does.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class StudyError(Exception):
    """Something in a config, a row, a checkpoint or a folder that its owner must change; shown as one line, no traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class MistakesError(StudyError):
    """Several mistakes that are told at once, a line for each; those that are the same once."""

    def __init__(self, lines: Iterable[str]) -> None:
        Exception.__init__(self, "\n".join(dict.fromkeys(map(escaped, lines))))


@contextmanager
def row_named(place: str) -> Iterator[None]:
    """Inside, a StudyError begins with the row that it is about."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{place}: {error}") from error


class DivergedError(StudyError):
    """A tuning whose loss or gradient has exploded; holds its history to that step, what is no number there as None."""

    def __init__(self, message: str, history: list[dict[str, float | None]]) -> None:
        super().__init__(message)
        self.history = history


class StoppedError(StudyError):
    """A tuning that was told to stop and saved its state."""


def told(error: BaseException) -> str | None:
    """The one line for an error that its user can mend: in the study, of memory, or a file that the system refuses; else None."""
    if isinstance(error, StudyError):
        return str(error)
    if lacks_memory(error):
        return f"memory ran out ({first_line(error)})"
    number, name = system_error(error), getattr(error, "filename", None)
    place = escaped(os.fsdecode(name)) if isinstance(name, str | bytes) else name
    if number in MEND:
        return f"{place or 'a file'}: {os.strerror(number)}; {mend(number)}"
    if isinstance(error, OSError) and place and error.strerror:
        return f"{place}: {error.strerror}; expected a file or folder that can be read and written"
    return None


# What its owner can do about a disk that takes no more, by the system's number of the error.
MEND = {
    errno.ENOSPC: "free space there or move the study to a larger disk, then",
    errno.EDQUOT: "free space of your own there or ask for a larger quota, then",
    errno.EROFS: "have that disk made writable or move the study to another, then",
    errno.EIO: "look after that disk, which fails, then",
}


def mend(number: int) -> str:
    """What to do about an error of the system, and that the same command goes on then."""
    return f"{MEND.get(number, 'mend it and')} run again"


def system_error(error: BaseException) -> int | None:
    """The operating system's number of an error of its own, or of a library that quotes it; None for other errors."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    quoted = re.search(r"os error (\d+)", str(error))  # safetensors' and tokenizers' way
    return int(quoted[1]) if quoted else None


def lacks_memory(error: BaseException) -> bool:
    """Whether the machine or a GPU had no memory left; CPU allocators have no error class of their own."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return (
        named
        or system_error(error) == errno.ENOMEM
        or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))
    )


NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|bad_alloc", re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return escaped(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))


def shown(value: object) -> str:
    """A value as an error quotes it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
