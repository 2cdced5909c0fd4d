#!/usr/bin/env bash
# snakemake==9.27.1: a parameter that is a pathlib.Path never makes a job run again, whatever it changes to.
#
# Guess: every changed value under params runs the job again, as "Params have changed since last execution".
# What happens: only values of built-in types are recorded. A Path, like any other object, is left out of the record, so that a
# rule given Path("a") and then Path("b") has "nothing to be done"; the same texts as str run the job again.
# Why it matters: a workflow that passes the folder of checkpoints or rows as a Path keeps the results of the old folder.
# Tunecast: it uses this. Where files lie is passed as a Path, what they hold as a hash beside it, which is recorded.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "snakemake==9.27.1"
cd "$folder"

venv/bin/python - <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RULE = "from pathlib import Path\nrule make:\n    output: 'out.txt'\n    params: {}\n    shell: 'touch {{output}}'\n"


def runs_again(before, after):
    """Whether the job runs again after its parameter has changed."""
    Path("out.txt").unlink(missing_ok=True)
    shown = ""
    for parameter in (before, after):
        Path("Snakefile").write_text(RULE.format(parameter))
        command = ["venv/bin/snakemake", "--cores", "1"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        shown = ended.stdout + ended.stderr
    return "Nothing to be done" not in shown


text, path = runs_again("'a'", "'b'"), runs_again("Path('a')", "Path('b')")
print("snakemake", version("snakemake"))
print("guess: the job runs again in both cases")
print(f"seen: 'a' to 'b': {'runs again' if text else 'nothing to be done'}; Path('a') to Path('b'): "
      f"{'runs again' if path else 'nothing to be done'}")
if (text, path) != (True, False):
    sys.exit("the behaviour has changed")
PYTHON
