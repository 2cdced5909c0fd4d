#!/usr/bin/env bash
# pyarrow==26.0.1, pandas==3.1.1, duckdb==2.0.1, polars==2.1.0: parts set aside under "_" or "." are rows for two of four readers.
#
# Guess: a folder of Parquet parts has one number of rows, whichever library counts.
# What happens: pyarrow, and so pandas, leave out every file or folder whose name begins with "_" or "."; DuckDB's and polars's
# readers take them all. The mean accuracy of one folder differs between them.
# Why it matters: "_old", "_failed" or a half-written ".part.parquet" beside the results is invisible to whoever checks with
# pandas and counts for whoever publishes with DuckDB.
# Tunecast: a part appears under its name when it is whole; unfinished files have names that do not end in ".parquet".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "duckdb==2.0.1" "pyarrow==26.0.1" "polars==2.1.0" "pandas==3.1.1"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet

parts = {"step=1/part.parquet": 0.9, "step=1/.part.parquet": 0.1, "_old/step=1/part.parquet": 0.2, "step=1/_copy.parquet": 0.4}
for name, accuracy in parts.items():
    Path("results", name).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"accuracy": [accuracy]}), Path("results", name))
seen = {
    "pyarrow": pyarrow.dataset.dataset("results", partitioning="hive").to_table()["accuracy"].to_pylist(),
    "pandas": pandas.read_parquet("results")["accuracy"].tolist(),
    "duckdb": duckdb.sql("select accuracy from read_parquet('results/**/*.parquet', hive_partitioning = true)").df()["accuracy"].tolist(),
    "polars": polars.read_parquet("results")["accuracy"].to_list(),
}
print("guess: all four read the same rows")
for library, values in seen.items():
    print(f"seen: {library} {version(library)}: {len(values)} rows, mean accuracy {sum(values) / len(values):.2f}")
if [len(values) for values in seen.values()] != [1, 1, 4, 4]:
    sys.exit("the behaviour has changed")
PYTHON
