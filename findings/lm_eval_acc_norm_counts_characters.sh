#!/usr/bin/env bash
# lm_eval==0.4.13: acc_norm divides by characters, not by bytes, so the alphabet of a choice decides whether it wins.
#
# Guess: acc_norm is the accuracy after log-likelihoods are divided by the length of the choice in bytes, which is how it is usually
# described, and which makes it independent of the tokenizer.
# What happens: the length is the number of characters. A Greek word that a model finds likelier, for each of its bytes, than an English
# word of as many letters loses, because its letters have two bytes each. acc_bytes picks it.
# Why it matters: acc_norm of tests with Greek, Cyrillic, Chinese or accented choices, or with formulas in some of them, is not comparable
# with a byte-normalised score of a paper or of another tool.
# Tunecast: accuracies of ranked choices name their normalisation; results of lm-evaluation-harness keep the name of their metric.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "lm_eval==0.4.13"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import json
import logging
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


class PerByte(LM):
    """A model that gives each byte the probability 1/2, and a little less to Latin letters."""

    def loglikelihood(self, requests):
        return [(-len(text.encode()) * (0.7 + 0.01 * text.strip().isascii()), False) for _, text in (one.args for one in requests)]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


# The right answer is the Greek one, whose bytes the model finds likelier; both choices have five characters.
rows = [{"q": "Which word is Greek?", "a": ["logos", "λόγος"], "y": 1}] * 4
Path("test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
task = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "{{a}}",
    "doc_to_target": "{{y}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc_norm"}, {"metric": "acc_bytes"}],
}
scores = simple_evaluate(PerByte(), tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0)["results"]["own"]
by_characters, by_bytes = scores["acc_norm,none"], scores["acc_bytes,none"]
print("lm_eval", version("lm_eval"))
print("guess: acc_norm is 1, since the right choice is likelier for each of its bytes")
print(f"seen: acc_norm {by_characters}, acc_bytes {by_bytes}")
if (by_characters, by_bytes) != (0.0, 1.0):
    sys.exit("the behaviour has changed")
PYTHON
