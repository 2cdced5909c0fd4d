#!/usr/bin/env bash
# peft==0.21.2: half of one LoRA adapter plus half of another is not the mean of the two.
#
# Guess: add_weighted_adapter(..., combination_type="linear") gives the weighted sum of the adapters' changes to the weights.
# What happens: the factors A and B are averaged apart, each with the root of the weight, and multiplied afterwards. The result
# holds half of each cross product of one adapter's B with the other's A. combination_type="cat" gives the exact sum, at a
# larger rank. "svd" is the best approximation of that sum at the rank asked for, and is closer.
# Why it matters: averages over seeds or tasks, and task arithmetic, report an effect of mixing that is an effect of the
# cross products: the error here is as large as the change itself.
# Tunecast: it merges one adapter at a time into its base and combines none.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "peft==0.21.2" "transformers==5.23.0" "torch==2.13.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model

warnings.simplefilter("ignore")
torch.manual_seed(0)
settings = LoraConfig(r=4, lora_alpha=4, target_modules=["0"])
model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(32, 32)), settings, adapter_name="first")
model.add_adapter("second", settings)
for name, parameter in model.named_parameters():
    if "lora_" in name:
        parameter.data.normal_()
layer = model.base_model.model[0]
mean = (layer.get_delta_weight("first") + layer.get_delta_weight("second")) / 2


def error(how):
    """Size of what a combination is off the mean, relative to the mean."""
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], how, combination_type=how)
    return float((layer.get_delta_weight(how) - mean).norm() / mean.norm())


seen = {how: error(how) for how in ("linear", "svd", "cat")}
print("peft", version("peft"))
print("guess: 'linear' with weights 0.5 and 0.5 is the mean of both changes")
for how, value in seen.items():
    print(f"seen: {how}: off the mean by {value:.2f} of its size")
if not (seen["linear"] > 0.5 and seen["svd"] < seen["linear"] and seen["cat"] < 1e-5):
    sys.exit("the behaviour has changed")
PYTHON
