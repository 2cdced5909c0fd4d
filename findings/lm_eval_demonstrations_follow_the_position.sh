#!/usr/bin/env bash
# lm_eval==0.4.13: which demonstrations a test row gets depends on the rows before it.
#
# Guess: with a seed, the few-shot prompt of a row belongs to the row: evaluated alone, it is the prompt of the full run.
# What happens: one random generator is moved on from row to row. With --samples, row 5 alone gets the demonstrations that
# row 0 gets in the full run.
# Why it matters: errors of a run cannot be looked into one by one, and after a test set was filtered each checkpoint is
# compared on other prompts than before, although seed and rows are the same.
# Tunecast: demonstrations are drawn once for a test by its seed, the same for every row, so any row can be repeated alone.
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
from lm_eval.tasks import get_task_dict

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
for split, count in (("train", 20), ("test", 8)):
    lines = [json.dumps({"q": f"{split} {row}?", "a": ["no", "yes"], "y": row % 2}) for row in range(count)]
    Path(f"{split}.jsonl").write_text("\n".join(lines) + "\n")
task = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
    "test_split": "test",
    "fewshot_split": "train",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "{{a}}",
    "doc_to_target": "{{y}}",
    "num_fewshot": 2,
}


def prompts(**which):
    """The prompt of each test row that is evaluated, by its question."""
    loaded = next(iter(get_task_dict([task]).values()))
    loaded.set_fewshot_seed(1234)
    loaded.build_all_requests(rank=0, world_size=1, **which)
    return {request.doc["q"]: request.args[0] for request in loaded.instances}


full, alone = prompts(), prompts(samples=[5])
print("lm_eval", version("lm_eval"))
print("guess: the prompt of test row 5 is the same in both runs")
print("seen: in the full run:", repr(full["test 5?"]))
print("seen: evaluated alone:", repr(alone["test 5?"]))
print("seen: test row 0 in the full run:", repr(full["test 0?"]))
moved = alone["test 5?"].replace("test 5?", "test 0?")
if alone["test 5?"] == full["test 5?"] or moved != full["test 0?"]:
    sys.exit("the behaviour has changed")
PYTHON
