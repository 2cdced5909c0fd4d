#!/usr/bin/env bash
# peft==0.21.2 with transformers==5.23.0: LoRA on dt_proj of a Mamba model is counted as trainable and is never read.
#
# Guess: each layer that get_peft_model accepts as a target has a part in the forward pass and learns.
# What happens: Mamba's block takes the weight of dt_proj itself and never calls the layer, so its adapters get no gradient.
# They stay at zero, while print_trainable_parameters counts them and nothing is said; x_proj beside it learns.
# Why it matters: a comparison of target modules, or of trainable parameters, is about adapters that do nothing; with dt_proj alone
# the tuned model is the base.
# Tunecast: it looks for adapters without a gradient before a tuning starts: where all are, it refuses; where some are, the log says so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0" "peft==0.21.2" "torch==2.13.0" numpy
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, MambaForCausalLM

torch.manual_seed(0)
base = MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4, time_step_rank=4))
model = get_peft_model(base, LoraConfig(r=2, target_modules=["dt_proj", "x_proj"], task_type="CAUSAL_LM"))
ids = torch.randint(0, 60, (2, 12))
model(input_ids=ids, labels=ids).loss.backward()
trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
learns = {
    layer: any(weight.grad is not None for name, weight in trained.items() if f".{layer}." in name)
    for layer in ("dt_proj", "x_proj")
}
counted = sum(weight.numel() for name, weight in trained.items() if ".dt_proj." in name)
print("peft", version("peft"), "transformers", version("transformers"))
print("guess: the adapters of both layers have a gradient")
print(f"seen: a gradient reaches dt_proj: {learns['dt_proj']}, x_proj: {learns['x_proj']}; "
      f"{counted} parameters of dt_proj are counted as trainable")
if learns != {"dt_proj": False, "x_proj": True} or counted == 0:
    sys.exit("the behaviour has changed")
PYTHON
