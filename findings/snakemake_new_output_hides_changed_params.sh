#!/usr/bin/env bash
# snakemake==9.27.1: a rule that gets a second output, whose file is there already, no longer notices changed parameters.
#
# Guess: a changed parameter runs a job again as long as one of its outputs has a record of the old value.
# What happens: records are compared only if every output has one. A file that was there before the rule named it, such as a
# checksum written by hand or by an earlier version of the workflow, has none, and then neither parameters nor the set of
# inputs of the job are compared at all. Nothing is said but "nothing to be done".
# Why it matters: after an update of a workflow, a new learning rate or another base leaves the old model in place.
# Tunecast: `python -m workflow.upgrading` gives such an output the record of the others before anything is compared.
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

RULE = "rule tune:\n    output: {}\n    params: rate={}\n    shell: 'echo {{params.rate}} | tee {{output}} > /dev/null'\n"


def run(outputs, rate):
    """What Snakemake says when the rule has these outputs and this rate."""
    Path("Snakefile").write_text(RULE.format(", ".join(map(repr, outputs)), rate))
    ended = subprocess.run(["venv/bin/snakemake", "--cores", "1"], capture_output=True, text=True, check=True)
    return "nothing to be done" if "Nothing to be done" in ended.stdout + ended.stderr else "ran"


run(["model.txt"], 0.1)
alone = run(["model.txt"], 0.2)
Path("model.sha256").write_text("written by hand\n")
both = run(["model.txt", "model.sha256"], 0.3)
print("snakemake", version("snakemake"))
print("guess: a new rate runs the job again with one output and with two")
print(f"seen: rate .1 to .2, one output: {alone}; rate .2 to .3, a second output that was there: {both}, "
      f"and the model is of rate {Path('model.txt').read_text().strip()}")
if (alone, both, Path("model.txt").read_text()) != ("ran", "nothing to be done", "0.2\n"):
    sys.exit("the behaviour has changed")
PYTHON
