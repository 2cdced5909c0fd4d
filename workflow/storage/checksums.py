"""Checksums beside each result. A damaged or replaced file is detected before it is used.

The checksum of `part.parquet` is in `.part.parquet.sha256`. For a folder `seed=0`, `.seed=0.sha256` has one line for each
file, in the format of `sha256sum --check`. Files without a checksum, such as the user's own, are used without a check.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from workflow.errors import StudyError

SUFFIX = ".sha256"
IGNORED = ".snakemake_timestamp"  # Snakemake's own marker in the folders that jobs make
NAMED = 20  # inputs that a result lists one by one
# Small files that are checked whenever a study starts; weights and texts are checked when they are loaded.
SWEPT = ("results", "resources/bases", "resources/tasks", "resources/pins")

_inputs: dict[str, str] = {}


def place(path: Path) -> Path:
    """Path of the file that holds the checksums of a file or folder."""
    return path.with_name(f".{path.name}{SUFFIX}")


def write(path: Path) -> None:
    """Write the checksums of a file, or of all files in a folder, beside it."""
    lines = "".join(f"{digest(file)}  {file.relative_to(path.parent).as_posix()}\n" for file in _files(path))
    unfinished = place(path).with_name(f"{place(path).name}.{os.getpid()}.unfinished")
    unfinished.write_text(lines, encoding="utf-8")
    os.replace(unfinished, place(path))


def forget(path: Path) -> None:
    """Remove the checksums of a file or folder that will be replaced."""
    place(path).unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def summary(path: Path) -> str | None:
    """One hash of the content of a file or folder as it was written, from its checksums. None if there are none."""
    try:
        return hashlib.sha256(place(path).read_bytes()).hexdigest()
    except OSError:
        return None


def check(path: Path | str) -> None:
    """Compare a file, or all files in a folder, with their checksums.

    Errors: StudyError naming the first file that differs, is missing or is not listed.
    """
    path = Path(path)
    for sealed in (path, *path.parents):
        if sealed.name in ("", "resources", "results"):  # no folder above this one has checksums
            return
        if place(sealed).is_file():
            _check(sealed, path)
            return


def _check(sealed: Path, path: Path) -> None:
    """Compare the files at or below `path` with the checksums of `sealed`, which is `path` or a parent folder."""
    noted = _noted(sealed)
    files_found = _files(path) if path.exists() else []
    for file in files_found:
        name = file.relative_to(sealed.parent).as_posix()
        if noted.get(name) != digest_once(file):
            raise StudyError(_differs(file, sealed))
    for name in noted:
        file = sealed.parent / name
        if (file == path or path in file.parents) and file not in files_found:
            raise StudyError(f"{file}: missing, although {place(sealed)} lists it; {_remedy(sealed)}")


def _remedy(sealed: Path) -> str:
    """How to repair a file or folder whose checksums do not match.

    Running its job again is enough if the new content is the same.
    """
    return f"restore it from a copy, or delete it and rebuild it with `snakemake --cores all {sealed}`"


def _differs(file: Path, sealed: Path) -> str:
    """Error line for a file whose content differs from its checksum."""
    return (
        f"{file}: does not match its checksum in {place(sealed)}, so it was damaged or replaced after it was written; "
        f"{_remedy(sealed)}"
    )


def _noted(sealed: Path) -> dict[str, str]:
    """The recorded checksums of a file or folder: name relative to the parent folder -> SHA-256."""
    try:
        lines = place(sealed).read_text(encoding="utf-8").splitlines()
        return {name: noted for noted, name in (line.split("  ", 1) for line in lines)}
    except ValueError as error:
        raise StudyError(
            f"{place(sealed)}: not a list of checksums; delete it, and {sealed} too unless you know that it is intact"
        ) from error


def _files(path: Path) -> list[Path]:
    """A file itself, or the files in a folder, sorted."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != IGNORED)


def digest_once(path: Path) -> str:
    """SHA-256 of a file. A process reads an unchanged file only once."""
    stat = path.stat()
    return _remembered(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=100_000)
def _remembered(path: str, *state: int) -> str:
    """SHA-256 of a file; cached by size and time of last change."""
    return digest(Path(path))


def sweep(folders: Iterable[str] = SWEPT) -> list[str]:
    """Check the small files of a study that were written, copied or touched after their checksums. Returns a line for each
    mismatch.

    Checksum files that match are touched, so that each file is read only once.
    """
    found = []
    for path, listed in _sealed(folders):
        try:
            if listed.stat().st_ctime_ns < _last_change(path):
                check(path)
                os.utime(listed)
        except StudyError as error:
            found.append(str(error))
        except OSError:  # no permission to touch it, or the file is gone: it is checked again when it is read
            continue
    return found


def _sealed(folders: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Existing files and folders that have checksums, each with the path of its checksum file."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name[1 : -len(SUFFIX)])
                if name.startswith(".") and name.endswith(SUFFIX) and path.exists():
                    yield path, Path(parent, name)


def _last_change(path: Path) -> int:
    """Time of the last change of a file, or of any file in a folder, in nanoseconds."""
    return max((file.stat().st_ctime_ns for file in _files(path)), default=0)


def use(paths: Iterable[str]) -> None:
    """Record the inputs of this process: all files and folders of the study that have checksums."""
    _inputs.clear()
    _inputs.update({path: noted for path in map(str, paths) if (noted := summary(Path(path)))})


def used() -> dict[str, str]:
    """The recorded inputs of this process: path -> hash of the content. Many inputs get one hash together."""
    if len(_inputs) <= NAMED:
        return dict(_inputs)
    lines = "".join(f"{path} {noted}\n" for path, noted in sorted(_inputs.items()))
    return {f"{len(_inputs)} files": hashlib.sha256(lines.encode()).hexdigest()}


def check_used(path: Path, made_of: Mapping[str, str]) -> None:
    """Raise StudyError if an input of a result has changed since. Inputs that are gone or have no checksum are skipped."""
    for name, noted in made_of.items():
        now = summary(Path(name))
        if now is not None and now != noted:
            raise StudyError(f"{path}: was made from another version of {name}; delete it and run again")
