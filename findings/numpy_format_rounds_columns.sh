#!/usr/bin/env bash
# datasets==5.2.0: with_format("numpy") gives a float64 column in single precision, but single rows in double.
#
# Guess: the format changes the container, not the numbers: float64 in the file is float64 in the array.
# What happens: slices and whole columns come as float32, a row as numpy.float64. The same number read in two ways is not
# equal, and nothing is said.
# Why it matters: log-probabilities of answers are subtracted from each other; single precision keeps seven digits of a sum
# over a document, so close candidates tie.
# Tunecast: predictions are read with pandas, in the precision in which they were written.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "datasets==5.2.0" "numpy==2.4.6"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys

import datasets

value = -1234.56789012345
rows = datasets.Dataset.from_dict({"log_probability": [value, value + 1e-5]}).with_format("numpy")
column, cell = rows[:]["log_probability"], rows[0]["log_probability"]

print("datasets", datasets.__version__, "column type", rows.features["log_probability"].dtype)
print("guess: float64, and two values 1e-5 apart differ")
print(f"seen: column {column.dtype}, its values {column[0]:.8f} and {column[1]:.8f}, equal: {column[0] == column[1]}")
print(f"seen: row 0 read alone: {type(cell).__name__} {cell:.8f}")
if not (column.dtype == "float32" and column[0] == column[1] and cell == value):
    sys.exit("the behaviour has changed")
PYTHON
