"""Upgrade a finished study of an earlier version without fine-tuning or predicting again.

`python -m workflow.upgrading --directory STUDY` writes the checksums that earlier versions did not write. For the results
of expensive rules whose recorded settings still match the config, it records the inputs and params as this version does.
The next run makes all other results again.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.storage import checksums
from workflow.storage.content_hashes import PACKAGE

UNDER_WAY = "TUNECAST_UPGRADING"  # set for the Snakemake that `main` starts
FOLDERS = (
    "resources/miniworld",
    "resources/corpora/*",
    "resources/pretrained/family=*/step=*",
    "resources/models/**/seed=*",
)
EXPENSIVE = {"generate", "pretrain", "collect", "pin_base", "pin_task", "pin_corpus", "fetch", "prepare"}
EXPENSIVE |= {"try_rate", "tune", "measure", "predict"}


def begin() -> None:
    """Update the recorded metadata of each result before Snakemake (started by `main`) compares it.

    Snakemake has no interface for this, so the method that looks metadata up is wrapped.
    """
    from snakemake.persistence import PersistenceBase

    asked = PersistenceBase.has_metadata

    def has_metadata(persistence: Any, job: Any) -> bool:
        if job.rule.name in EXPENSIVE:
            _carry_over(persistence, job)
        return asked(persistence, job)

    PersistenceBase.has_metadata = has_metadata


def _carry_over(persistence: Any, job: Any) -> None:
    """Record the present params and inputs of a job for outputs that were made with the same settings.

    An output that is new in this version gets the metadata of the others: without any, Snakemake would compare none.
    """
    from snakemake.io import IOFile

    records = {str(path): persistence.metadata(path) for path in job.output}
    known = next((record for record in records.values() if record), None)
    if known is None and job.rule.name == "pretrain":  # an earlier version trained a family in one job
        known = persistence.metadata(IOFile(os.path.dirname(job.output[0]), rule=job.rule))
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
    """Whether the recorded settings of a result and the code of its task match the config and the present code."""
    settings = [_without_saved(rule, noted) for noted in known.params or [] if noted.startswith("{")]
    if rule == "fetch":  # the path of a folder no longer counts; a changed file shows in its hash
        settings = [noted for noted in settings if "'path': " not in noted]
        if any(re.search("'[0-9a-f]{64}'", told) for told in new):
            return False
    return all(noted in new for noted in settings) and all(
        _is(path, noted) for path, noted in (known.input_checksums or {}).items() if path.endswith(".py")
    )


def _without_saved(rule: str, noted: str) -> str:
    """Recorded settings; of a pre-training without its saved steps, which are jobs of their own now."""
    if rule != "pretrain":
        return noted
    return repr({key: value for key, value in ast.literal_eval(noted).items() if key != "save"})


def _is(path: str, noted: str) -> bool:
    """Whether a module of this package still has its recorded checksum."""
    module = PACKAGE / path.rpartition("workflow/")[2]
    return module.is_file() and f"sha256:{checksums.digest(module)}" == noted


def pending(folder: Path = Path()) -> str | None:
    """An error line for a study made by an earlier version; None if this version made it or there are no results yet."""
    for pattern in FOLDERS:
        path = next(folder.glob(pattern), None)
        if path and _mark(path).is_file() and not checksums.place(path).exists():
            return (
                f"{path}: an earlier version of Tunecast made this study; run `python -m workflow.upgrading --directory "
                f"STUDY` from the folder of the Snakefile first, or everything runs again"
            )
    return None


def _mark(path: Path) -> Path:
    """Snakemake's marker in a folder, or, for a saved step, in the family's folder, where earlier versions had it."""
    marks = [path / checksums.IGNORED]
    marks += [path.parent / checksums.IGNORED] if path.name.startswith("step=") else []
    return next((mark for mark in marks if mark.exists()), marks[0])


def seal(folder: Path = Path()) -> Iterator[Path]:
    """Write the checksums of folders that have none, dated like the folder; yields each folder.

    Errors: StudyError for a file that does not match the checksums of the folder around it.
    """
    for pattern in FOLDERS:
        for path in sorted(folder.glob(pattern)):
            mark, listed = _mark(path), checksums.place(path)
            if path.is_dir() and not listed.exists():
                checksums.check(path)
                checksums.write(path)
                date = (mark if mark.exists() else path).stat().st_mtime_ns
                os.utime(listed, ns=(date, date))
                if mark.parent == path.parent:
                    shutil.copy2(mark, path)
                yield path
    for family in folder.glob("resources/pretrained/family=*"):  # only its steps count now
        (family / checksums.IGNORED).unlink(missing_ok=True)
        checksums.forget(family)
        _keep_time(folder / "results/benchmarks/pretrain", family)


def _keep_time(benchmarks: Path, family: Path) -> None:
    """Count the measured time of a family that was trained in one job for its last step, so that sums stay right."""
    measured = benchmarks / f"{family.name}.tsv"
    steps = sorted(family.glob("step=*"), key=lambda path: int(path.name.removeprefix("step=")))
    if measured.is_file() and steps:
        (benchmarks / family.name).mkdir(exist_ok=True)
        measured.rename(benchmarks / family.name / f"{steps[-1].name}.tsv")


def main() -> int:
    """Upgrade the study named on the command line; returns the exit code of a dry run of Snakemake."""
    parser = argparse.ArgumentParser(prog="python -m workflow.upgrading", description=__doc__.splitlines()[0])
    parser.add_argument("--directory", default=".", type=Path, help="folder of the study")
    parser.add_argument("snakemake", nargs="*", help="options for Snakemake, behind --")
    asked = parser.parse_args()
    try:
        for path in seal(asked.directory):
            print(f"checksums of {path} written")
    except StudyError as error:
        sys.exit(str(error))
    look = [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGE.parent / "Snakefile"), "--dry-run"]
    look += ["--directory", str(asked.directory), "--cores", "1", "--quiet", "rules", *asked.snakemake]
    return subprocess.run(look, env=os.environ | {UNDER_WAY: "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
