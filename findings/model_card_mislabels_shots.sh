#!/usr/bin/env bash
# huggingface_hub==2.4.0: of a model card's results with 0 and with 5 shots, both are published as zero-shot.
#
# Guess: two results with different dataset_args (num_few_shot 0 and 5) are two entries of the card's model-index.
# What happens: results are grouped without regard to dataset_args, and the first result's stand for the group. Read back, the
# 5-shot accuracy says num_few_shot: 0; written in the other order, the 0-shot one says 5. A single result keeps its own.
# Why it matters: the card that is published, and every table made from cards, shows a few-shot accuracy as a zero-shot one.
# Tunecast: the cards of tuned models carry no results; scores are in tables with a column for shots.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "huggingface-hub==2.4.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys

import huggingface_hub
from huggingface_hub import EvalResult, ModelCard, ModelCardData


def result(shots, accuracy):
    return EvalResult(
        task_type="text-generation",
        dataset_type="nyu-mll/glue",
        dataset_name="MNLI",
        dataset_args={"num_few_shot": shots},
        metric_type="accuracy",
        metric_value=accuracy,
    )


def read_back(*results):
    """Value and arguments of results that were written to a card and read from it."""
    data = ModelCardData(model_name="model", eval_results=list(results))
    return [(one.metric_value, one.dataset_args) for one in ModelCard(f"---\n{data.to_yaml()}\n---\n").data.eval_results]


single, both = read_back(result(5, 0.62)), read_back(result(0, 0.34), result(5, 0.62))
print("huggingface_hub", huggingface_hub.__version__)
print("guess: what is read back is what was written")
print("seen: one result:", single)
print("seen: two results:", both)
if single != [(0.62, {"num_few_shot": 5})] or both != [(0.34, {"num_few_shot": 0}), (0.62, {"num_few_shot": 0})]:
    sys.exit("the behaviour has changed")
PYTHON
