#!/usr/bin/env bash
# tokenizers==0.23.3 and transformers==5.23.0: BPE dropout that was used in pre-training goes on when a checkpoint is evaluated.
#
# Guess: dropout of merges is a matter of training and off when a tokenizer is loaded from its file, like dropout of a model.
# What happens: it is saved in tokenizer.json and applies to every call of encode; there is no evaluation mode, and
# transformers loads such a file without a word. One text has other ids at each call.
# Why it matters: scores of one checkpoint differ from run to run although no sampling is set
# anywhere; prompt and prompt + answer no longer begin with the same ids.
# Tunecast: it switches the dropout off when it loads a tokenizer, in tuning as in evaluation, and the log says so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "tokenizers==0.23.3" "transformers==5.23.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

vocabulary = {"a": 0, "b": 1, "ab": 2, "abab": 3}
Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "ab")], dropout=0.3)).save("tokenizer.json")
plain, loaded = Tokenizer.from_file("tokenizer.json"), AutoTokenizer.from_pretrained(".")
text = "ab" * 40
by_file = {tuple(plain.encode(text).ids) for _ in range(20)}
by_transformers = {tuple(loaded(text).input_ids) for _ in range(20)}

print("tokenizers", version("tokenizers"), "transformers", version("transformers"))
print("guess: one text, one sequence of ids")
print(f"seen: 20 calls, different sequences: {len(by_file)} by tokenizers, {len(by_transformers)} by transformers")
if min(len(by_file), len(by_transformers)) < 2:
    sys.exit("the behaviour has changed")
PYTHON
