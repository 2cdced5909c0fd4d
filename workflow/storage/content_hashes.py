"""Hashes of the content of files and code, as params of rules.

A job then depends on content, not on the date or path of a file. Snakemake compares the hashes with those of the last run.
Paths are passed as `Path` objects, which Snakemake does not compare.
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
RECENT = 2e9  # nanoseconds: a younger file may change again within one tick of the file system's clock
COMMA = re.compile(rb"\s*,[ \t]*")  # tokens that end an argument
DIGITS = 16  # length of a hash that is compared but has no security purpose


@dataclass(frozen=True)
class Places:
    """Paths of files that a job reads, among the params of its rule.

    Snakemake does not compare objects of this class with the last run.
    """

    paths: tuple[Path, ...]


UNCOUNTED = Places(())  # value of a param for jobs that it does not concern; the same as no param


class Memory:
    """Cache of file hashes by path, size and time of last change, stored in the study's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.known: dict[str, list[Any]] = {}
        self.new = False
        with contextlib.suppress(OSError, ValueError):
            self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def recall(self, kind: str, path: Path, make: Callable[[Path], str]) -> str:
        """The hash of a file, computed by `make` if it is not cached."""
        stat = path.stat()
        key, state = f"{kind} {path.absolute()}", [stat.st_size, stat.st_mtime_ns]
        entry = self.known.get(key)
        if entry and entry[:2] == state:
            return entry[2]
        made = make(path)
        if time.time_ns() - stat.st_mtime_ns > RECENT:
            self.known[key] = [*state, made]
            self.new = True
        return made

    def save(self) -> None:
        """Write new entries. If the folder cannot be written, the next start reads the files again."""
        if not self.new:
            return
        with contextlib.suppress(OSError, StudyError), whole(self.path, sealed=False) as unfinished:
            unfinished.write_text(json.dumps(self.known), encoding="utf-8")


@functools.cache
def memory() -> Memory:
    """The hash cache of the study in the current working directory."""
    loaded = Memory(MEMORY)
    atexit.register(loaded.save)
    return loaded


def of_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes. Errors: OSError for a file that cannot be read."""
    return memory().recall("file", Path(path), digest)


def of_files(paths: Iterable[Path | str], root: Path | None = None) -> dict[str, str]:
    """SHA-256 of each file, by its path below a root or else by the last two parts of its path.

    A folder that is moved as a whole keeps these names. Errors: StudyError for two files with the same name.
    """
    hashes: dict[str, str] = {}
    for path in map(Path, paths):
        name = path.relative_to(root).as_posix() if root else f"{path.parent.name}/{path.name}"
        if name in hashes:
            raise StudyError(f"{path}: the name {name!r} appears twice; expected files in folders of different names")
        hashes[name] = of_file(path)
    return hashes


def of_checkpoint(files: Sequence[Path], recorded: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fingerprint of each file of a checkpoint, by name. recorded: the manifest that `fetch` wrote, None before the first
    fetch.

    A file that still matches the manifest keeps its recorded fingerprint, any other gets its SHA-256. Before the first
    `fetch`, which reads each file anyway, the fingerprint is the size in bytes. Weights are therefore read here only if
    their size matches the manifest and their date does not.
    """
    if recorded is None:
        return {file.name: file.stat().st_size for file in files}
    told, dates = recorded.get("contents", {}), recorded.get("dates", {})
    hashes: dict[str, Any] = {}
    for file in files:
        stat, known = file.stat(), recorded["files"].get(file.name)
        if known is None:
            hashes[file.name] = stat.st_size
        elif known["bytes"] == stat.st_size and (
            dates.get(file.name) == stat.st_mtime_ns or of_file(file) == known["sha256"]
        ):
            hashes[file.name] = told.get(file.name, known["bytes"])
        else:
            hashes[file.name] = of_file(file)
    return hashes


def of_code(*modules: str | Path, without: Sequence[str] = ()) -> str:
    """Hash of the code of modules, without comments and docstrings.

    Modules are paths without `.py`, relative to this package or complete. without: keyword arguments of calls that do not
    count either. Files of other types count completely.
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
    """Hash of a module's code without comments and docstrings."""
    return hashlib.sha256(bare(path.read_text(encoding="utf-8"), without).encode()).hexdigest()


Span = tuple[int, int]  # byte offsets of its start and end


def bare(source: str, without: Sequence[str] = ()) -> str:
    """Code without comments, docstrings, blank lines and the keyword arguments of calls named in `without`.

    The text is cut instead of being printed from a syntax tree, because versions of Python print a tree differently.
    """
    text, kept, done = source.encode(), [], 0
    for start, stop in sorted({*_comments(source), *_unread(source, without)}):
        if start >= done:  # a range inside a range that is cut needs no cut
            kept.append(text[done:start])
            done = stop
    code = b"".join([*kept, text[done:]]).decode()
    return "\n".join(line.rstrip() for line in code.splitlines() if line.strip())


def _starts(lines: Sequence[str]) -> list[int]:
    """Byte offset of the start of each line."""
    return list(itertools.accumulate((len(line.encode()) for line in lines), initial=0))


def _comments(source: str) -> Iterator[Span]:
    """Byte ranges of comments."""
    lines = list(io.StringIO(source))
    starts = _starts(lines)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            start = starts[row - 1] + len(lines[row - 1][:column].encode())
            yield start, start + len(token.string.encode())


def _unread(source: str, without: Sequence[str]) -> Iterator[Span]:
    """Byte ranges of docstrings and of keyword arguments that do not count."""
    text, starts = source.encode(), _starts(list(io.StringIO(source)))
    defined = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        values: list[Any] = []
        if isinstance(node, defined) and ast.get_docstring(node) is not None:
            values = [node.body[0]]
        elif isinstance(node, ast.Call):
            values = [keyword for keyword in node.keywords if keyword.arg in without]
        for part in values:
            stop = starts[part.end_lineno - 1] + part.end_col_offset
            behind = COMMA.match(text, stop) if isinstance(part, ast.keyword) else None
            yield starts[part.lineno - 1] + part.col_offset, behind.end() if behind else stop
