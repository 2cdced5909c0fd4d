"""The errors that are the user's to mend: each is one line that names the place, the finding and what is allowed."""

from __future__ import annotations

import os
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


def told(error: BaseException) -> str | None:
    """The one line for an error that its user can mend: in the study, or a file that the system refuses; else None."""
    if isinstance(error, StudyError):
        return str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        place = escaped(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else error.filename
        return f"{place}: {error.strerror}; expected a file or folder that can be read and written"
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return escaped(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))


def shown(value: object) -> str:
    """A value as an error quotes it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
