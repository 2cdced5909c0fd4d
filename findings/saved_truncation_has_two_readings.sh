#!/usr/bin/env bash
# tokenizers==0.23.3 and transformers==5.23.0: a length limit saved in tokenizer.json holds in one library and not in the other.
#
# Guess: "truncation" and "padding" in tokenizer.json are part of the tokenizer and hold wherever the file is loaded.
# What happens: tokenizers cuts every text to the saved length and fills the short ones up; transformers switches both
# off at each call without truncation=True, and with it does not use the saved length as a limit either.
# Why it matters: some released folders carry a leftover limit. Corpora encoded with tokenizers for speed are
# cut without a word, while the same checkpoint evaluated through transformers reads whole documents.
# Tunecast: texts are encoded through transformers, never cut by the file; what exceeds the context is cut by its own rule and
# counted in the audit.
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

tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
tokenizer.enable_truncation(4)
tokenizer.enable_padding(length=6)
tokenizer.save("tokenizer.json")
text = "ab" * 10
by_file = Tokenizer.from_file("tokenizer.json").encode(text).ids
loaded = AutoTokenizer.from_pretrained(".")
plain, asked = loaded(text).input_ids, loaded(text, truncation=True).input_ids

print("tokenizers", version("tokenizers"), "transformers", version("transformers"))
print("guess: 4 tokens and 2 of padding from both")
print(f"seen: tokenizers gives {len(by_file)} ids {by_file}")
print(f"seen: transformers gives {len(plain)} ids, and {len(asked)} with truncation=True")
if (len(by_file), len(plain), len(asked)) != (6, 10, 10):
    sys.exit("the behaviour has changed")
PYTHON
