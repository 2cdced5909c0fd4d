#!/usr/bin/env bash
# snakemake==9.27.1: max_rss of a benchmark misses a peak of ten seconds.
#
# Guess: max_rss is the largest resident memory of the job, as the kernel counts it.
# What happens: memory is sampled, twice a second at first and every 30 seconds after the first quarter of a minute. A job that holds
# 400 MB for ten seconds between two samples is reported with the few MB that it held before and after.
# Why it matters: max_rss is where the mem_mb of cluster jobs is read from. Loading a checkpoint in a long job is such a peak, and a job
# that asks for what the benchmark says is killed.
# Tunecast: memory requests are computed from the size of the model (docs/memory.md); benchmarks are for times.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "snakemake==9.27.1"
cd "$folder"

cat > job.py <<'PYTHON'
import resource
import time
from pathlib import Path

time.sleep(20)
held = bytearray(b"x") * 400_000_000  # every page is written
time.sleep(10)
del held
time.sleep(5)
Path("peak").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
PYTHON
cat > Snakefile <<'SNAKEFILE'
rule all:
    output: "peak"
    benchmark: "benchmark.tsv"
    shell: "venv/bin/python job.py"
SNAKEFILE
venv/bin/snakemake --cores 1 --quiet all

venv/bin/python - <<'PYTHON'
import csv
import sys
from importlib.metadata import version
from pathlib import Path

[row] = csv.DictReader(Path("benchmark.tsv").open(), delimiter="\t")
reported, peak = float(row["max_rss"]), float(Path("peak").read_text())
print("snakemake", version("snakemake"))
print("guess: max_rss is the peak of the job")
print(f"seen: the kernel counts {peak:.0f} MB, max_rss is {reported:.0f} MB")
if not (peak > 380 and reported < 100):
    sys.exit("the behaviour has changed")
PYTHON
