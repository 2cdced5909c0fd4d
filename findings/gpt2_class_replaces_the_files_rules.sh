#!/usr/bin/env bash
# transformers==5.23.0 and tokenizers==0.23.3: naming GPT2Tokenizer replaces the pre-tokenizer that tokenizer.json holds.
#
# Guess: with a tokenizer.json beside it, tokenizer_class in tokenizer_config.json is a label; the file says how text is split.
# What happens: GPT2Tokenizer and GPTNeoXTokenizer take vocabulary and merges from the file and put a pre-tokenizer of their own in
# its place. A file that keeps digits apart reads "2024" as four tokens, the class as one. A config.json of model_type
# gpt2, gpt_neox or olmo has the same effect where no class is named; TokenizersBackend leaves the file as it is.
# Why it matters: the checkpoint is evaluated and tuned on sequences it was never trained on, above all around numbers,
# and nothing is said.
# Tunecast: it compares the class with the file on probe texts (digits, spaces, line ends, scripts); where they differ the file's
# rules are used and the log says so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0" "tokenizers==0.23.3"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

merges = [("2", "0"), ("20", "2"), ("202", "4")]
pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
digits_apart = pre_tokenizers.Digits(individual_digits=True)
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits_apart, pre_tokenizers.ByteLevel(add_prefix_space=False)])
tokenizer.decoder = decoders.ByteLevel()


def read(folder, name=None, model_type=None):
    """The class that is picked and its tokens of a text."""
    Path(folder).mkdir()
    tokenizer.save(f"{folder}/tokenizer.json")
    if name:
        Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    if model_type:
        Path(folder, "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(folder)
    return type(loaded).__name__, loaded.convert_ids_to_tokens(loaded("in 2024").input_ids)


expected = tokenizer.encode("in 2024").tokens
seen = {
    "TokenizersBackend named": read("a", "TokenizersBackend"),
    "GPT2Tokenizer named": read("b", "GPT2Tokenizer"),
    "GPTNeoXTokenizer named": read("c", "GPTNeoXTokenizer"),
    "none named, model_type olmo": read("d", model_type="olmo"),
}
print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
print("guess: the tokens of the file in all cases:", expected)
for case, (picked, tokens) in seen.items():
    print(f"seen: {case}: {picked} gives {tokens}")
one_number = ["i", "n", "Ġ", "2024"]
if [tokens for _, tokens in seen.values()] != [expected, one_number, one_number, one_number]:
    sys.exit("the behaviour has changed")
PYTHON
