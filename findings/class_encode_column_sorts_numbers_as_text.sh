#!/usr/bin/env bash
# datasets==5.2.0: class_encode_column gives the integer labels 1, 2, 10 the new values 0, 2, 1.
#
# Guess: integer labels keep their order, or their values, when they are made a ClassLabel.
# What happens: the names of the classes are the labels as text, sorted as text: "1", "10", "2". From ten classes on, the
# encoded label is no longer in the order of the label, and even 0 to 10 is renumbered.
# Why it matters: train_test_split(stratify_by_column=...) asks for a ClassLabel, so this call is the usual way there. A
# score by class index, a list of verbalizers in label order, or a model tuned before the call then mean other classes.
# Tunecast: the order of a task's labels is written in its task module, and rows are never encoded by this call.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "datasets==5.2.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys

import datasets

datasets.disable_progress_bars()
labels = list(range(12))
encoded = datasets.Dataset.from_dict({"label": labels}).class_encode_column("label")

print("datasets", datasets.__version__)
print("guess: labels 0 to 11 are encoded as 0 to 11")
print("seen:", dict(zip(labels, encoded["label"][:], strict=True)))
print("seen: names of the classes:", encoded.features["label"].names)
if encoded["label"][:] != [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]:
    sys.exit("the behaviour has changed")
PYTHON
