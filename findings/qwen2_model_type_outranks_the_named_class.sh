#!/usr/bin/env bash
# transformers==5.23.0: with model_type qwen2 in config.json the tokenizer class named in tokenizer_config.json is not used.
#
# Guess: a tokenizer class that the checkpoint names outright wins over one implied by the architecture of the model.
# What happens: AutoTokenizer loads Qwen2Tokenizer, which puts the normaliser and the byte-level splitting of Qwen 2 in the place
# of what tokenizer.json says. The same files with model_type llama are read as they are.
# Why it matters: many checkpoints have the architecture of Qwen 2 and a tokenizer of their own (distilled ones, ones for another
# language). Here a vocabulary with marks at the beginning of words meets byte-level splitting: the spaces are lost, and each word
# gets the id of the same letters inside a word. All scores are of another text.
# Tunecast: it compares the class with the file on probe texts; where they differ the file's rules are used and the log says so.
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

pieces = ["<unk>", "▁", "s", "e", "a", "se", "▁se", "sea", "▁sea"]
merges = [("s", "e"), ("▁", "se"), ("se", "a"), ("▁se", "a")]
tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()


def read(model_type):
    """The class that is picked and its tokens of a text."""
    folder = Path(model_type)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(folder)
    return type(loaded).__name__, loaded.convert_ids_to_tokens(loaded("sea sea").input_ids)


expected = tokenizer.encode("sea sea").tokens
llama, qwen = read("llama"), read("qwen2")
print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
print("guess: PreTrainedTokenizerFast is named, so both give the tokens of the file:", expected)
print(f"seen: model_type llama: {llama[0]} gives {llama[1]}")
print(f"seen: model_type qwen2: {qwen[0]} gives {qwen[1]}")
if llama[1] != expected or qwen[0] != "Qwen2Tokenizer" or qwen[1] == expected:
    sys.exit("the behaviour has changed")
PYTHON
