"""Harm a finished study in many ways and ask for its results: are they right, or does one line name the file?

`PYTHONPATH=. python benchmarks/integrity.py STUDY OUT [--harms 60] [--seed 0] [--only NUMBER]`: STUDY is the folder of a study
that has run to its end, such as the smoke study; OUT an empty folder. Each harm is done to a copy: a flipped byte, a file cut
short, two files exchanged with or without their checksums, a part written anew with wrong values. Then the documented command
runs, on the study as it is, or after some scores and gathered tables have been removed, so that parts are read again. Prints a
row for each harm; exit code 1 where a table is wrong without a word.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workflow.storage import checksums

ROOT = Path(__file__).parents[1]
PARTLY = ("results/scores.parquet", "results/histories.parquet", "results/indicators.parquet")
UNREAD = ("results/benchmarks",)  # what Snakemake measures of jobs, with which no result is made again


def files(study: Path, pattern: str = "*") -> list[Path]:
    """What a study has made, sorted; checksums left out."""
    found = [path for folder in ("resources", "results") for path in (study / folder).rglob(pattern) if path.is_file()]
    own = [path for path in found if path.suffix != checksums.SUFFIX and path.name != checksums.IGNORED]
    return sorted(path for path in own if path.stat().st_size and not str(path.relative_to(study)).startswith(UNREAD))


def flip(study: Path, chance: random.Random) -> Path:
    """One bit of one byte is another."""
    path = chance.choice(files(study))
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return path


def flip_unseen(study: Path, chance: random.Random) -> Path:
    """One bit of one byte is another, at the date that the file had."""
    seen = {path: path.stat().st_mtime_ns for path in files(study)}
    path = flip(study, chance)
    os.utime(path, ns=(seen[path], seen[path]))
    return path


def cut(study: Path, chance: random.Random) -> Path:
    """A file ends too early."""
    path = chance.choice(files(study))
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    return path


def exchange(study: Path, chance: random.Random) -> Path:
    """A part lies where that of another cell belongs."""
    first, second = chance.sample(_alike(study, chance), 2)
    shutil.copy(first, second)
    return second


def exchange_with_checksums(study: Path, chance: random.Random) -> Path:
    """A part lies where that of another cell belongs, its checksums beside it."""
    first, second = chance.sample(_alike(study, chance), 2)
    shutil.copy(first, second)
    shutil.copy(checksums.place(first), checksums.place(second))
    return second


def _alike(study: Path, chance: random.Random) -> list[Path]:
    """All parts of one kind."""
    kind = chance.choice(["predictions", "scores", "items", "histories", "indicators"])
    return sorted((study / "results" / kind).rglob("part.parquet"))


def rewrite(study: Path, chance: random.Random) -> Path:
    """A part of scores, or of prepared rows, is written anew: values turned round, a row twice or none."""
    path = chance.choice([*(study / "results/scores").rglob("part.parquet"), *files(study / "resources", "*.parquet")])
    table = pq.ParquetFile(path).read()
    column = table.column_names.index("value" if "value" in table.column_names else "answer")
    turned = pa.chunked_array([pa.array(table.column(column).to_pylist()[::-1], table.schema.field(column).type)])
    how = chance.choice(["turned", "twice", "none"])
    made = {
        "turned": lambda: table.set_column(column, table.schema.field(column), turned),
        "twice": lambda: pa.concat_tables([table, table.slice(0, 1)]),
        "none": lambda: table.slice(0, 0),
    }[how]()
    pq.write_table(made, path)
    return path


HARMS: list[Callable[[Path, random.Random], Path]] = [
    flip, flip, flip_unseen, cut, exchange, exchange_with_checksums, rewrite
]  # fmt: skip


def tables(study: Path) -> dict[str, object]:
    """What a study shows: its gathered tables, and the files of its tables to read."""
    shown: dict[str, object] = {}
    for path in sorted((study / "results").glob("*.parquet")):
        shown[path.name] = pd.read_parquet(path).drop(columns=["seconds"], errors="ignore")
    for path in sorted((study / "results/tables").glob("*.*")):
        shown[path.name] = path.read_bytes()
    return shown


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Whether two studies show the same."""
    return one.keys() == other.keys() and all(
        value.equals(other[name]) if isinstance(value, pd.DataFrame) else value == other[name]
        for name, value in one.items()
    )


def again(study: Path) -> None:
    """Take away the tables of PARTLY, and the scores of some cells."""
    for path in [*(study / name for name in PARTLY), *sorted((study / "results/scores").rglob("part.parquet"))[::5]]:
        path.unlink()


def outcome(study: Path, clean: dict[str, object], harmed: Path, asked: tuple[str, ...]) -> str:
    """What the documented command makes of a harmed study, asked for some tables or for all of it."""
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(study),
         "--cores", "2", "--keep-going", *asked],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if ended.returncode == 0:
        return "same tables" if same(tables(study), clean) else "WRONG WITHOUT A WORD"
    name = str(harmed.relative_to(study))
    lines = [line for line in ended.stderr.splitlines() if name in line or name.rsplit("/", 1)[0] in line]
    if "Traceback" in ended.stderr:
        return "TRACEBACK"
    return "one line" if lines else f"NOT NAMED: {ended.stderr.strip().splitlines()[-1]}"


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--harms", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    clean, counted = tables(asked.study), Counter()
    for number in [asked.only] if asked.only is not None else range(asked.harms):
        chance, study = random.Random(f"{asked.seed} {number}"), asked.out / "study"
        shutil.rmtree(study, ignore_errors=True)
        subprocess.run(["cp", "-a", str(asked.study), str(study)], check=True)
        if number % 2:
            again(study)
        wanted = PARTLY if number % 2 else ()
        harm = HARMS[number % len(HARMS)]
        path = harm(study, chance)
        found = outcome(study, clean, path, wanted)
        counted[found.split(":")[0]] += 1
        print(f"{number}\t{harm.__name__}\t{path.relative_to(study)}\t{found}", flush=True)
    print(dict(counted))
    return int(any(name.isupper() for name in counted))


if __name__ == "__main__":
    sys.exit(main())
