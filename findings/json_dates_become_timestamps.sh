#!/usr/bin/env bash
# datasets==5.2.0: answers that look like dates are no text any more after load_dataset("json").
#
# Guess: a string in a JSON Lines file is a string in the data set.
# What happens: a column in which every value has the form of an ISO date gets the type timestamp[s], and the answer
# "2024-01-01" is handed out as datetime(2024, 1, 1, 0, 0). One value of another form keeps the whole column text, so it
# depends on which rows are in the file; Parquet of the same rows keeps text.
# Why it matters: a question set about dates is rendered into prompts as "2024-01-01 00:00:00": the reference never equals
# what a model writes, and a sample of the rows can have another type than the whole.
# Tunecast: rows of data_root are read by its own JSON Lines reader, in which a string stays a string.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "datasets==5.2.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import datetime
import json
import sys

import datasets

datasets.disable_progress_bars()


def loaded(name, answers):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"question": "When?", "answer": answer}) + "\n" for answer in answers)
    return datasets.load_dataset("json", data_files=name, split="train")


dates, mixed = loaded("dates.jsonl", ["2024-01-01", "1999-12-31"]), loaded("mixed.jsonl", ["2024-01-01", "in May"])
print("datasets", datasets.__version__)
print("guess: both files give answers of type string")
for found in (dates, mixed):
    print(f"seen: type {found.features['answer'].dtype}, first answer {found[0]['answer']!r}, in a prompt: {found[0]['answer']}")
if dates[0]["answer"] != datetime.datetime(2024, 1, 1) or mixed[0]["answer"] != "2024-01-01":
    sys.exit("the behaviour has changed")
PYTHON
