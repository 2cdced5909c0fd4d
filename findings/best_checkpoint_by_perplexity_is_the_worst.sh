#!/usr/bin/env bash
# transformers==5.23.0: metric_for_best_model="perplexity" keeps the checkpoint with the highest perplexity.
#
# Guess: the direction of a metric is known, or has to be stated.
# What happens: lower is better only for names that end in "loss"; for all others greater_is_better becomes True without a
# word. "perplexity", "nll", "bits_per_byte", "loss_per_token" are maximised, by load_best_model_at_end and by early stopping.
# Why it matters: tuning ends with its worst saved state, and early stopping ends runs that still improve.
# Tunecast: it keeps the state at the end of a tuning and chooses a learning rate by the lowest validation loss; it has no such
# setting.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0" "torch==2.13.0" "accelerate==1.15.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from transformers import TrainingArguments

names = ("eval_loss", "eval_perplexity", "eval_nll", "eval_bits_per_byte", "eval_loss_per_token")
seen = {
    name: TrainingArguments(output_dir="run", metric_for_best_model=name, use_cpu=True).greater_is_better for name in names
}
print("transformers", version("transformers"))
print("guess: greater_is_better is False for all of them, or None until it is set")
for name, greater in seen.items():
    print(f"seen: {name}: greater_is_better={greater}")
if list(seen.values()) != [False, True, True, True, True]:
    sys.exit("the behaviour has changed")
PYTHON
