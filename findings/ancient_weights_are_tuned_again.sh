#!/usr/bin/env bash
# snakemake==9.27.1: a new evaluation repeats all older ones where weights are temporary, in spite of ancient().
#
# Guess: with temp() weights and ancient() in the rules that read them, one more test tunes the model once more and runs that test.
# What happens: ancient() ignores the age of a file, not that its job is to run. All finished evaluations of the model are
# deleted from the plan of what is done ("Input files updated by another job") and run again.
# Why it matters: a test added to a finished grid of checkpoints repeats every GPU hour of it, and the old scores are replaced.
# Tunecast: keep_weights keeps tuned weights; its README says what a suite costs where they do not stay.
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

Path("Snakefile").write_text("""
rule all:
    input: expand("score_{test}.txt", test=config["tests"])

rule tune:
    output: temp("model.bin")
    shell: "touch {output}"

rule score:
    input: ancient("model.bin")
    output: "score_{test}.txt"
    shell: "echo {wildcards.test} >> log.txt; touch {output}"
""")


def run(*tests):
    """The tests that a run of the workflow scores."""
    Path("log.txt").unlink(missing_ok=True)
    Path("study.yaml").write_text(f"tests: [{', '.join(tests)}]\n")
    command = ["venv/bin/snakemake", "--cores", "1", "--configfile", "study.yaml", "--quiet", "all"]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(Path("log.txt").read_text().split())


first, second = run("mnli", "rte"), run("mnli", "rte", "paws")
print("snakemake", version("snakemake"))
print("guess: the second run scores ['paws'] only")
print("seen: first run scores", first)
print("seen: second run, one test more, scores", second)
if first != ["mnli", "rte"] or second != ["mnli", "paws", "rte"]:
    sys.exit("the behaviour has changed")
PYTHON
