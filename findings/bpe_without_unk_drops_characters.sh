#!/usr/bin/env bash
# tokenizers==0.23.3: a BPE tokenizer without an unknown token leaves out what it does not know.
#
# Guess: a character outside the vocabulary is an error, as it is for WordLevel without an unknown token.
# What happens: it is skipped. "café" becomes the tokens of "caf", and another text with the same ids; only the
# offsets show the gap.
# Why it matters: characters that are not scored cost nothing, so the perplexity per byte of a foreign script falls the
# less of it the vocabulary covers, and a checkpoint with such a tokenizer looks good on text that it does not read.
# Tunecast: it names such characters in its log when it loads a tokenizer; the vocabularies that it trains are byte-level.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "tokenizers==0.23.3"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

from tokenizers import Tokenizer, models

vocabulary = {piece: number for number, piece in enumerate(["a", "c", "f", "ca", "caf", " "])}
bpe = Tokenizer(models.BPE(vocabulary, [("c", "a"), ("ca", "f")]))
words = Tokenizer(models.WordLevel({"caf": 0}, unk_token="[UNK]"))
known, unknown = bpe.encode("caf caf"), bpe.encode("café caf")
try:
    other = words.encode("café").tokens
except Exception as error:
    other = f"{type(error).__name__}: {error}"

print("tokenizers", version("tokenizers"))
print("guess: encoding a character that the vocabulary lacks raises an error")
print(f"seen: 'café caf' -> {unknown.tokens}, offsets {unknown.offsets}")
print(f"seen: same ids as 'caf caf': {unknown.ids == known.ids}; WordLevel in the same case: {other}")
if unknown.ids != known.ids or isinstance(other, list):
    sys.exit("the behaviour has changed")
PYTHON
