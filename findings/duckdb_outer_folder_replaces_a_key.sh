#!/usr/bin/env bash
# duckdb==2.0.1: a key=value folder above a table replaces the table's own key, and a column of the file as well.
#
# Guess: hive keys are those below the folder that is read; where a folder further up has the same key, the innermost one counts.
# What happens: read_parquet takes keys from the whole path that it is given. A study in a folder "seed=9" gives its rows with
# seed=0 the seed 9, and a column "step" in a file below "step=3" the value 3, without being asked. Through a path relative
# to the study, and with pandas or polars, the same rows keep seed 0.
# Why it matters: sweeps are often laid out as key=value folders around whole studies; averages by seed or step are then
# taken over the wrong rows, and the answer depends on the folder from which the query is run.
# Tunecast: its README reads results by a path relative to the study, and gathered tables hold the keys as columns of one file.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "duckdb==2.0.1" "pyarrow==26.0.1" "polars==2.1.0" "pandas==3.1.1"
cd "$folder"

venv/bin/python - <<'PYTHON'
import os
import sys
from importlib.metadata import version
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.parquet


def write(path, **columns):
    Path(path).parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


write("sweep/seed=9/results/family=a/seed=0/part.parquet", accuracy=[0.5])
write("sweep/step=3/scores/part.parquet", step=[7], accuracy=[0.5])
study = Path("sweep/seed=9/results").absolute()
outer = duckdb.sql(f"select seed from read_parquet('{study}/**/*.parquet', hive_partitioning = true)").fetchall()[0][0]
others = int(pandas.read_parquet(study)["seed"][0]), polars.read_parquet(study)["seed"][0]
file = Path("sweep/step=3/scores/part.parquet").absolute()
column = duckdb.sql(f"select step from read_parquet('{file}')").fetchall()[0][0]
os.chdir(study)
relative = duckdb.sql("select seed from read_parquet('**/*.parquet', hive_partitioning = true)").fetchall()[0][0]

print("duckdb", version("duckdb"), "pandas", version("pandas"), "polars", version("polars"))
print("guess: seed 0, from whatever folder the table is read, and step 7, which stands in the file")
print(f"seen: seed by absolute path {outer}, by relative path {relative}; pandas and polars by absolute path {others}")
print(f"seen: step of a file with the column step = 7 below a folder step=3: {column}")
if (outer, relative, others, column) != (9, 0, (0, 0), 3):
    sys.exit("the behaviour has changed")
PYTHON
