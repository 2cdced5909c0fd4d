#!/usr/bin/env bash
# snakemake==9.27.1: --config flag=false switches a flag on, and --config revision=1e5 is the number 100000.
#
# Guess: a value after --config means what the same text means in config.yaml.
# What happens: it is tried as int, float and the words True and False, and is text otherwise. So "false" is a non-empty
# string, which is true; "[1, 2]" is a list of two strings; 1e5 and 12_000, possible names of a branch, are numbers. In YAML
# false is a boolean and the list holds numbers, while 1e5 and 1e-3 are strings there: a learning rate changes its type with where
# it was written, and the jobs that read it run again.
# Why it matters: weights are kept that should not be, a revision is not found, and a rate written "1e-3" in the file fails
# where it worked on the command line.
# Tunecast: every key is checked against a schema with types; a value of another type is refused in a line.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "snakemake==9.27.1"
cd "$folder"

venv/bin/python - <<'PYTHON'
import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

Path("Snakefile").write_text("print(repr(config))\nrule all:\n")
values = {"keep": "false", "steps": "[1, 2]", "revision": "1e5", "rate": "1e-3"}


def config(*arguments):
    """The configuration that a Snakefile sees."""
    command = ["venv/bin/snakemake", "--dry-run", "--quiet", "all", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ast.literal_eval(shown.splitlines()[0])


line = config("--config", *(f"{key}={value}" for key, value in values.items()))
Path("study.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
file = config("--configfile", "study.yaml")
print("snakemake", version("snakemake"))
print("guess: both ways give the same values")
for key, value in values.items():
    print(f"seen: {key}={value}: {line[key]!r} on the command line, {file[key]!r} in a file; true: {bool(line[key])}, {bool(file[key])}")
if line != {"keep": "false", "steps": ["1", "2"], "revision": 100000.0, "rate": 0.001}:
    sys.exit("the behaviour has changed")
if file != {"keep": False, "steps": [1, 2], "revision": "1e5", "rate": "1e-3"}:
    sys.exit("the behaviour has changed")
PYTHON
