#!/usr/bin/env bash
# transformers==5.17.0: a Gemma 2 checkpoint is loaded with an attention that leaves its soft caps out.
#
# Guess: from_pretrained picks an attention that computes what config.json asks for, attn_logit_softcapping included.
# What happens: it picks sdpa, which has no soft cap and does not say so. With attn_implementation="eager" the same weights give
# other logits. Version 5.23.0 no longer offers sdpa for this model.
# Why it matters: scores and losses depend on the version of the library, and those of the older one are of another model than the
# one that was trained.
# Tunecast: models with soft caps are loaded with eager attention where the version at hand would leave them out.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.17.0" "torch==2.13.0" numpy
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

torch.manual_seed(0)
config = Gemma2Config(
    vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, initializer_range=1.0,
)
Gemma2ForCausalLM(config).save_pretrained("gemma")
ids = torch.randint(3, 60, (1, 20))
with torch.no_grad():
    picked = AutoModelForCausalLM.from_pretrained("gemma").eval()
    eager = AutoModelForCausalLM.from_pretrained("gemma", attn_implementation="eager").eval()
    gap = float((picked(ids).logits - eager(ids).logits).abs().max())
chosen = picked.config._attn_implementation
print("transformers", version("transformers"))
print("guess: the attention that is picked heeds attn_logit_softcapping, so both loads agree")
print(f"seen: {chosen} is picked; its logits differ from those of eager attention by up to {gap:.2g}")
if not (chosen == "sdpa" and gap > 1e-2):
    sys.exit("the behaviour has changed")
PYTHON
