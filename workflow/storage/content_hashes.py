"""What files and code hold, as hashes: a job depends on content, whatever the date of a file and wherever it lies.

These hashes stand among the params of rules, which Snakemake compares with those of the last run. Places stand there too,
as `Path`s: these Snakemake does not compare.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import hashlib
import io
import itertools
import json
import re
import time
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.storage.checksums import digest
from workflow.storage.files import whole

PACKAGE = Path(__file__).parents[1]
MEMORY = Path(".snakemake/tunecast/contents.json")
RECENT = 2e9  # nanoseconds: a file that is younger may change again within one tick of its clock
COMMA = re.compile(rb"\s*,[ \t]*")  # that ends an argument
DIGITS = 16  # of a hash that is shown and compared, but protects nothing


@dataclass(frozen=True)
class Places:
    """Files that a job reads, among the params of its rule: Snakemake compares no objects like this one with the last run."""

    paths: tuple[Path, ...]


UNCOUNTED = Places(())  # a param of jobs for which it says nothing, which is as if it were not there


class Memory:
    """Hashes of files by path, size and time of last change, so that a file is read once; kept in the study's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.known: dict[str, list[Any]] = {}
        self.new = False
        with contextlib.suppress(OSError, ValueError):
            self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def recall(self, kind: str, path: Path, make: Callable[[Path], str]) -> str:
        """The hash of a kind that `make` gives for a file."""
        stat = path.stat()
        key, state = f"{kind} {path.absolute()}", [stat.st_size, stat.st_mtime_ns]
        found = self.known.get(key)
        if found and found[:2] == state:
            return found[2]
        made = make(path)
        if time.time_ns() - stat.st_mtime_ns > RECENT:
            self.known[key] = [*state, made]
            self.new = True
        return made

    def save(self) -> None:
        """Keep what is new; a folder that cannot be written costs the next start some reading, no more."""
        if not self.new:
            return
        with contextlib.suppress(OSError, StudyError), whole(self.path, sealed=False) as unfinished:
            unfinished.write_text(json.dumps(self.known), encoding="utf-8")


@functools.cache
def memory() -> Memory:
    """The memory of the study in whose folder this process runs."""
    found = Memory(MEMORY)
    atexit.register(found.save)
    return found


def of_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes. Errors: OSError for a file that cannot be read."""
    return memory().recall("file", Path(path), digest)


def of_files(paths: Iterable[Path | str], root: Path | None = None) -> dict[str, str]:
    """SHA-256 of each file by its path below a root, else by its name with its folder's name, which a moved folder keeps.

    Errors: StudyError for two files of one such name.
    """
    found: dict[str, str] = {}
    for path in map(Path, paths):
        name = path.relative_to(root).as_posix() if root else f"{path.parent.name}/{path.name}"
        if name in found:
            raise StudyError(f"{path}: the name {name!r} appears twice; expected files in folders of different names")
        found[name] = of_file(path)
    return found


def of_checkpoint(files: Sequence[Path], recorded: Mapping[str, Any] | None) -> dict[str, Any]:
    """What tells the content of a checkpoint's files from what was recorded of it, by name.

    recorded: the manifest that `fetch` wrote, None where there is none yet. A file that is still what the manifest says is
    told by what told it then, any other by its SHA-256; before the first `fetch`, which reads each file anyway, by its size
    in bytes. So weights are read here only where their size is that of the manifest and their date is not.
    """
    if recorded is None:
        return {file.name: file.stat().st_size for file in files}
    told, dates = recorded.get("contents", {}), recorded.get("dates", {})
    found: dict[str, Any] = {}
    for file in files:
        stat, known = file.stat(), recorded["files"].get(file.name)
        if known is None:
            found[file.name] = stat.st_size
        elif known["bytes"] == stat.st_size and (
            dates.get(file.name) == stat.st_mtime_ns or of_file(file) == known["sha256"]
        ):
            found[file.name] = told.get(file.name, known["bytes"])
        else:
            found[file.name] = of_file(file)
    return found


def of_code(*modules: str | Path, without: Sequence[str] = ()) -> str:
    """Hash of what modules do, by their paths without `.py`, in this package or whole: comments and docstrings do not count.

    without: keyword arguments of calls that do not count either. Other files count whole.
    """
    texts = [_code(PACKAGE / module, tuple(without)) for module in modules]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:DIGITS]


def _code(path: Path, without: tuple[str, ...]) -> str:
    """Hash of one module, or of another file of the package."""
    if path.suffix:
        return of_file(path)
    make = functools.partial(_hashed, without=without)
    return memory().recall(f"code {','.join(without)}", path.with_name(f"{path.name}.py"), make)


def _hashed(path: Path, without: tuple[str, ...]) -> str:
    """Hash of a module's bare code."""
    return hashlib.sha256(bare(path.read_text(encoding="utf-8"), without).encode()).hexdigest()


Span = tuple[int, int]  # places in bytes where it starts and ends


def bare(source: str, without: Sequence[str] = ()) -> str:
    """Code without comments, docstrings, blank lines and the keyword arguments of calls named in `without`.

    The text is cut, not printed anew from a syntax tree, since each version of Python prints one differently.
    """
    text, kept, done = source.encode(), [], 0
    for start, stop in sorted({*_comments(source), *_unread(source, without)}):
        if start >= done:  # what lies in a piece that is cut already goes with it
            kept.append(text[done:start])
            done = stop
    code = b"".join([*kept, text[done:]]).decode()
    return "\n".join(line.rstrip() for line in code.splitlines() if line.strip())


def _starts(lines: Sequence[str]) -> list[int]:
    """Where each line starts, in bytes."""
    return list(itertools.accumulate((len(line.encode()) for line in lines), initial=0))


def _comments(source: str) -> Iterator[Span]:
    """Where comments are."""
    lines = list(io.StringIO(source))
    starts = _starts(lines)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            start = starts[row - 1] + len(lines[row - 1][:column].encode())
            yield start, start + len(token.string.encode())


def _unread(source: str, without: Sequence[str]) -> Iterator[Span]:
    """Where docstrings and keyword arguments that do not count are."""
    text, starts = source.encode(), _starts(list(io.StringIO(source)))
    defined = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        found: list[Any] = []
        if isinstance(node, defined) and ast.get_docstring(node) is not None:
            found = [node.body[0]]
        elif isinstance(node, ast.Call):
            found = [keyword for keyword in node.keywords if keyword.arg in without]
        for part in found:
            stop = starts[part.end_lineno - 1] + part.end_col_offset
            behind = COMMA.match(text, stop) if isinstance(part, ast.keyword) else None
            yield starts[part.lineno - 1] + part.col_offset, behind.end() if behind else stop
