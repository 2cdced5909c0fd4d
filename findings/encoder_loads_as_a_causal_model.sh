#!/usr/bin/env bash
# transformers==5.23.0: AutoModelForCausalLM loads a BERT checkpoint that reads ahead, and scores text with it.
#
# Guess: what AutoModelForCausalLM returns is causal; an encoder is refused, or made causal.
# What happens: BERT, RoBERTa and other encoders have a class for causal language models. Loaded from a config with
# is_decoder false, which is what released encoders have, it attends to all tokens: the logits of the first
# tokens change with what comes after them. A warning in the log is all that tells.
# Why it matters: log-probabilities of a text, and so every score made of them, are those of a model that has seen the answer.
# Tunecast: a checkpoint whose logits change with later tokens is refused when it is loaded.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0" "torch==2.13.0" numpy
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel

sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
torch.manual_seed(0)
BertLMHeadModel(BertConfig(**sizes)).save_pretrained("encoder")
model = AutoModelForCausalLM.from_pretrained("encoder").eval()
with torch.no_grad():
    one, other = (model(torch.tensor([[5, 6, 7, *end]])).logits[0, :3] for end in ([8, 9], [18, 19]))
gap = float((one - other).abs().max())
print("transformers", version("transformers"))
print("guess: AutoModelForCausalLM raises, or the logits of three tokens do not depend on what follows them")
print(f"seen: {type(model).__name__} is loaded; another ending changes the logits of the first three tokens by up to {gap:.2g}")
if not (type(model).__name__ == "BertLMHeadModel" and gap > 1e-3):
    sys.exit("the behaviour has changed")
PYTHON
