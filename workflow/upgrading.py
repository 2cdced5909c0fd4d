"""Bring a study that an earlier version has finished to this one, without a tuning or a prediction that was made already.

`python -m workflow.upgrading --directory STUDY` writes the checksums that earlier versions did not write, and notes what the
results of the expensive rules depend on as this version notes it, where the settings that were noted are still those of
the config. Whatever else has changed since is made again by the next run, which is what happens to all other results, too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow.storage import checksums
from workflow.storage.content_hashes import PACKAGE

UNDER_WAY = "TUNECAST_UPGRADING"  # set for the Snakemake that `main` starts
FOLDERS = ("resources/miniworld", "resources/corpora/*", "resources/pretrained/family=*", "resources/models/**/seed=*")
EXPENSIVE = {"generate", "pretrain", "collect", "pin_base", "pin_task", "pin_corpus", "fetch", "prepare"}
EXPENSIVE |= {"try_rate", "tune", "measure", "predict"}


def begin() -> None:
    """Within `main`'s Snakemake: bring the notes of each result up to date before they are compared.

    Snakemake offers no other way than its own store of them; this wraps the question whether there are any.
    """
    from snakemake.persistence import PersistenceBase

    asked = PersistenceBase.has_metadata

    def has_metadata(persistence: Any, job: Any) -> bool:
        if job.rule.name in EXPENSIVE:
            _carry_over(persistence, job)
        return asked(persistence, job)

    PersistenceBase.has_metadata = has_metadata


def _carry_over(persistence: Any, job: Any) -> None:
    """Note the params and inputs of a job as they are now, for outputs that were made with the same settings.

    An output that is new in this version gets the notes of the others in any case: without any, Snakemake compares none.
    """
    records = {str(path): persistence.metadata(path) for path in job.output}
    known = next((record for record in records.values() if record), None)
    if known is None or not all(map(os.path.exists, records)):
        return
    new = persistence._params(job)
    same = _same(job.rule.name, known, new)
    for path in job.output:
        record = records[str(path)] or known.model_copy()
        if same:
            record.params, record.input = new, persistence._input(job)
        persistence._write_record(persistence._get_key(path), record)
    persistence._clear_cache()


def _same(rule: str, known: Any, new: list[str]) -> bool:
    """Whether the settings noted of a result, and the code of its task, are those of the config and the code of now."""
    settings = [noted for noted in known.params or [] if noted.startswith("{")]
    if rule == "fetch":  # a folder named its place, which no longer counts; a file that is another is told by its hash
        settings = [noted for noted in settings if "'path': " not in noted]
        if any(re.search("'[0-9a-f]{64}'", told) for told in new):
            return False
    return all(noted in new for noted in settings) and all(
        _is(path, noted) for path, noted in (known.input_checksums or {}).items() if path.endswith(".py")
    )


def _is(path: str, noted: str) -> bool:
    """Whether a module of this package, noted by a path that ends in its own, has the bytes that were noted."""
    module = PACKAGE / path.rpartition("workflow/")[2]
    return module.is_file() and f"sha256:{checksums.digest(module)}" == noted


def pending(folder: Path = Path()) -> str | None:
    """What to say of a study that an earlier version has made; None where this one has made it or nothing is there yet."""
    for pattern in FOLDERS:
        path = next(folder.glob(pattern), None)
        if path and (path / checksums.IGNORED).is_file() and not checksums.place(path).exists():
            return (
                f"{path}: an earlier version of Tunecast made this study; run `python -m workflow.upgrading --directory "
                f"STUDY` from the folder of the Snakefile first, or all of it is made again"
            )
    return None


def seal(folder: Path = Path()) -> Iterator[Path]:
    """Write the checksums of folders that have none, dated like the folder; they are given one after the other."""
    for pattern in FOLDERS:
        for path in sorted(folder.glob(pattern)):
            mark, listed = path / checksums.IGNORED, checksums.place(path)
            if path.is_dir() and not listed.exists():
                checksums.write(path)
                date = (mark if mark.exists() else path).stat().st_mtime_ns
                os.utime(listed, ns=(date, date))
                yield path


def main() -> int:
    """Upgrade the study of the command line; the exit code of Snakemake's look at it."""
    parser = argparse.ArgumentParser(prog="python -m workflow.upgrading", description=__doc__.splitlines()[0])
    parser.add_argument("--directory", default=".", type=Path, help="folder of the study")
    parser.add_argument("snakemake", nargs="*", help="options for Snakemake, behind --")
    asked = parser.parse_args()
    for path in seal(asked.directory):
        print(f"checksums of {path} written")
    look = [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGE.parent / "Snakefile"), "--dry-run"]
    look += ["--directory", str(asked.directory), "--cores", "1", "--quiet", "rules", *asked.snakemake]
    return subprocess.run(look, env=os.environ | {UNDER_WAY: "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
