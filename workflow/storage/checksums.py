"""Checksums of what jobs have written, kept beside it: a damaged or exchanged file is noticed before it is used.

Beside each file `part.parquet` lies `.part.parquet.sha256`, beside each folder `seed=0` lies `.seed=0.sha256` with a line
for each file in it: the form that `sha256sum --check` reads. Files without one, such as those of an earlier version or
the user's own, are used as they are.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from workflow.errors import StudyError

SUFFIX = ".sha256"
IGNORED = ".snakemake_timestamp"  # Snakemake's own mark in the folders that jobs make
NAMED = 20  # inputs that a result names one by one
# Small files that are checked whenever a study starts; weights and texts are checked when they are loaded.
SWEPT = ("results", "resources/bases", "resources/tasks", "resources/pins")

_inputs: dict[str, str] = {}


def place(path: Path) -> Path:
    """The file that holds the checksums of a file or folder."""
    return path.with_name(f".{path.name}{SUFFIX}")


def write(path: Path) -> None:
    """Write the checksums of a file, or of all files in a folder, beside it."""
    lines = "".join(f"{digest(file)}  {file.relative_to(path.parent).as_posix()}\n" for file in _files(path))
    unfinished = place(path).with_name(f"{place(path).name}.{os.getpid()}.unfinished")
    unfinished.write_text(lines, encoding="utf-8")
    os.replace(unfinished, place(path))


def forget(path: Path) -> None:
    """Remove the checksums of a file or folder that is about to be replaced."""
    place(path).unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def summary(path: Path) -> str | None:
    """One hash for the content of a file or folder as it was written, without reading it; None where none was noted."""
    try:
        return hashlib.sha256(place(path).read_bytes()).hexdigest()
    except OSError:
        return None


def check(path: Path | str) -> None:
    """Compare a file, or all files in a folder, with the checksums that were written with it, or with its folder.

    Errors: StudyError naming the first file that differs, is missing or does not belong there.
    """
    path = Path(path)
    for sealed in (path, *path.parents):
        if sealed.name in ("", "resources", "results"):  # checksums lie no further up
            return
        if place(sealed).is_file():
            _check(sealed, path)
            return


def _check(sealed: Path, path: Path) -> None:
    """Compare the files at or below `path` with the checksums of `sealed`, which is `path` or a folder around it."""
    noted = _noted(sealed)
    found = _files(path) if path.exists() else []
    for file in found:
        name = file.relative_to(sealed.parent).as_posix()
        if noted.get(name) != digest_once(file):
            raise StudyError(_differs(file, sealed))
    for name in noted:
        file = sealed.parent / name
        if (file == path or path in file.parents) and file not in found:
            raise StudyError(f"{file}: missing, although {place(sealed)} lists it; {_remedy(sealed)}")


def _remedy(sealed: Path) -> str:
    """How to mend a file or folder whose checksums do not match: made again alone, it moves nothing else if it is the same."""
    return f"restore it from a copy, or delete it and rebuild it with `snakemake --cores all {sealed}`"


def _differs(file: Path, sealed: Path) -> str:
    """What to say of a file that is not what was written."""
    return (
        f"{file}: does not match its checksum in {place(sealed)}, so it was damaged or replaced after it was written; "
        f"{_remedy(sealed)}"
    )


def _noted(sealed: Path) -> dict[str, str]:
    """Name -> SHA-256 as noted for a file or folder, names as seen from the folder around it."""
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
    """SHA-256 of a file, read once by a process as long as the file does not change."""
    stat = path.stat()
    return _remembered(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=100_000)
def _remembered(path: str, *state: int) -> str:
    """SHA-256 of a file in a state that its size and times tell."""
    return digest(Path(path))


def sweep(folders: Iterable[str] = SWEPT) -> list[str]:
    """Check the small files of a study that have been written, copied or touched since their checksums; what differs.

    Checksums that hold are touched, so that each file is read once.
    """
    found = []
    for path, listed in _sealed(folders):
        try:
            if listed.stat().st_ctime_ns < _last_change(path):
                check(path)
                os.utime(listed)
        except StudyError as error:
            found.append(str(error))
        except OSError:  # no right to touch it, or a file that vanished: whoever reads it checks it again
            continue
    return found


def _sealed(folders: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Files and folders that are there and have checksums, with the place of these."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name[1 : -len(SUFFIX)])
                if name.startswith(".") and name.endswith(SUFFIX) and path.exists():
                    yield path, Path(parent, name)


def _last_change(path: Path) -> int:
    """When a file, or any file in a folder, was last written, copied or touched, in nanoseconds."""
    return max((file.stat().st_ctime_ns for file in _files(path)), default=0)


def use(paths: Iterable[str]) -> None:
    """Note what this process makes its results of: all files and folders of the study that have checksums."""
    _inputs.clear()
    _inputs.update({path: noted for path in map(str, paths) if (noted := summary(Path(path)))})


def used() -> dict[str, str]:
    """What results of this process are made of: path -> hash of its content; of many inputs one hash of all."""
    if len(_inputs) <= NAMED:
        return dict(_inputs)
    lines = "".join(f"{path} {noted}\n" for path, noted in sorted(_inputs.items()))
    return {f"{len(_inputs)} files": hashlib.sha256(lines.encode()).hexdigest()}


def check_used(path: Path, made_of: Mapping[str, str]) -> None:
    """StudyError unless what a result was made of is what lies there now; what is gone or was not noted does not count."""
    for name, noted in made_of.items():
        now = summary(Path(name))
        if now is not None and now != noted:
            raise StudyError(f"{path}: was made from another version of {name}; delete it and run again")
