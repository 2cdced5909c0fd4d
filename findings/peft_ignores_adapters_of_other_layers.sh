#!/usr/bin/env bash
# peft==0.21.2: adapter weights for layers that the base does not have are dropped without a word.
#
# Guess: PeftModel.from_pretrained raises an error, or at least warns, when weights of an adapter file find no place in the model, as
# load_state_dict does.
# What happens: names that the model lacks are ignored in silence. An adapter of a model with four layers loads on a base with two
# without an error or a warning: half of it is dropped.
# Why it matters: an adapter is tied to its base by a name in its config alone. With the wrong base of the same width, or after a
# conversion that counts layers differently, what is evaluated is neither the fine-tuned model nor the base, and nothing says so.
# Tunecast: adapters that do not fit their base in every name and shape are refused.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    "torch==2.13.0" "transformers==5.23.0" "peft==0.21.2" "safetensors==0.8.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import logging
import sys
import warnings

import peft
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

logging.disable(logging.WARNING)
torch.manual_seed(0)
shape = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
tokens = torch.arange(10)[None]


def saved(layers):
    """A folder with a base of some layers."""
    LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=layers)).save_pretrained(f"base{layers}")
    return f"base{layers}"


def base(folder):
    return LlamaForCausalLM.from_pretrained(folder).eval()


deep, shallow = saved(4), saved(2)
settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
tuned = peft.get_peft_model(base(deep), settings)
for name, parameter in tuned.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.5)
tuned.save_pretrained("adapter")
stored = len(load_file("adapter/adapter_model.safetensors"))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    loaded = peft.PeftModel.from_pretrained(base(shallow), "adapter")
told = [str(one.message) for one in told if "adapter" in str(one.message).lower() or "key" in str(one.message).lower()]
used = sum("lora_" in name for name, _ in loaded.named_parameters())
print("peft", peft.__version__)
print("guess: an error, or a warning that names the weights without a place")
print(f"seen: no error, {len(told)} warnings; {used} of the {stored} weights in the file are in the model")
if (used, stored, told) != (8, 16, []):
    sys.exit("the behaviour has changed")
PYTHON
