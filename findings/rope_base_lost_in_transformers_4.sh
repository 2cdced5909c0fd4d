#!/usr/bin/env bash
# transformers==5.23.0 and transformers==4.57.1: the base of rotary positions that 5 saves is not read by 4.
#
# Guess: config.json is the contract between versions: what one cannot read of another's file is an error or a warning.
# What happens: version 5 writes the base inside "rope_parameters" only. Version 4 reads the key "rope_theta", finds none, keeps
# the other as an unused attribute and takes its default of 10,000: no message, and all weights load.
# Why it matters: a checkpoint with a base of 500,000 that was tuned under version 5 and is evaluated in an environment that
# holds version 4 (inference engines and harnesses often do) has wrong positions in every layer and plausible, worse scores.
# Tunecast: it tunes and evaluates with transformers 5; the card of a tuned model says that loading it needs that version.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from transformers import LlamaConfig

LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}).save_pretrained("model")
Path("read.py").write_text("from transformers import AutoConfig\nprint(AutoConfig.from_pretrained('model').rope_theta)\n")
subprocess.run([sys.executable, "-m", "venv", "older"], check=True)
install = ["older/bin/python", "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
subprocess.run([*install, "transformers==4.57.1"], check=True)
older = subprocess.run(["older/bin/python", "-W", "error", "read.py"], capture_output=True, text=True, check=True)

print("saved by transformers", version("transformers"), "and read by 4.57.1")
print("guess: 500000.0, or a warning")
print("seen:", older.stdout.strip())
messages = [line for line in older.stderr.splitlines() if "PyTorch" not in line]
print("seen: messages beside the one that PyTorch is not installed:", messages)
if float(older.stdout) != 10000.0 or messages:
    sys.exit("the behaviour has changed")
PYTHON
