#!/usr/bin/env bash
# rouge-score==0.1.2: the "mid" value of the aggregator is not the mean score, and differs from call to call.
#
# Guess: mid of BootstrapAggregator.aggregate() is the mean over the rows; only low and high come from resampling.
# What happens: mid is the median of the resampled means, and the resampling takes no seed of its own. Twice the same rows
# give two values, and neither is the mean.
# Why it matters: summarisation scripts report mid as "the ROUGE" of a model, often to two decimals of a percent. With 50 rows two
# calls on the same outputs differ in the first decimal, and a model can differ from itself.
# Tunecast: in protocol sound the value is the mean, with a seeded interval; protocol published repeats what the published study
# did, with a seed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "rouge-score==0.1.2" "numpy==2.4.6"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from rouge_score.scoring import BootstrapAggregator, Score

rows = np.random.default_rng(0).beta(0.5, 2, size=50)


def mid():
    aggregator = BootstrapAggregator()
    for value in rows:
        aggregator.add_scores({"rougeL": Score(value, value, value)})
    return aggregator.aggregate()["rougeL"].mid.fmeasure


seen = [mid() for _ in range(4)]
print("rouge-score", version("rouge-score"))
print(f"guess: {100 * rows.mean():.3f} each time")
print("seen: four calls on the same 50 rows:", ", ".join(f"{100 * value:.3f}" for value in seen))
if len(set(seen)) == 1 or any(value == rows.mean() for value in seen):
    sys.exit("the behaviour has changed")
PYTHON
