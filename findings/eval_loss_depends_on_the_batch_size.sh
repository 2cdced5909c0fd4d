#!/usr/bin/env bash
# transformers==5.23.0: Trainer's eval_loss, and a perplexity made of it, change with the batch size of the evaluation.
#
# Guess: the evaluation loss is the mean over all scored tokens, as the training loss has been since gradient accumulation was mended.
# What happens: each batch's mean over its tokens is weighted by its number of rows. Rows of 3 and of 60 tokens weigh the
# same at batch size 1 and by length within a larger batch, so the number depends on the batch size and on the order of
# the rows.
# Why it matters: two checkpoints evaluated on differently large GPUs are not comparable, and exp(eval_loss) is the perplexity
# of no text. Here batch sizes of 1 and 2 differ by 0.4.
# Tunecast: losses and perplexities are sums over tokens divided by the number of tokens, whatever the batches.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "transformers==5.23.0" "torch==2.13.0" "accelerate==1.15.0"
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
size = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=64)
model = LlamaForCausalLM(LlamaConfig(**size)).eval()
model.lm_head.weight.data *= 30
rows = [{"input_ids": torch.randint(64, (length,))} for length in (3, 4, 30, 40, 5, 60, 3, 9)]


def padded(batch):
    """Rows padded on the right, padding masked out and not scored."""
    longest = max(len(row["input_ids"]) for row in batch)
    ids, labels = torch.zeros(len(batch), longest, dtype=torch.long), torch.full((len(batch), longest), -100)
    for number, row in enumerate(batch):
        ids[number, : len(row["input_ids"])] = labels[number, : len(row["input_ids"])] = row["input_ids"]
    return {"input_ids": ids, "labels": labels, "attention_mask": (labels != -100).long()}


def loss(batch_size):
    settings = TrainingArguments(
        "run", use_cpu=True, per_device_eval_batch_size=batch_size, report_to=[], disable_tqdm=True, log_level="error"
    )
    trainer = Trainer(model, settings, data_collator=padded, eval_dataset=rows)
    trainer.log = lambda *_: None
    return trainer.evaluate()["eval_loss"]


seen = {batch_size: loss(batch_size) for batch_size in (1, 2, 8)}
with torch.no_grad():
    scored = [len(row["input_ids"]) - 1 for row in rows]
    token_mean = sum(float(model(**padded([row])).loss) * n for row, n in zip(rows, scored, strict=True)) / sum(scored)
print("transformers", version("transformers"))
print(f"guess: {token_mean:.3f}, the mean over tokens, at every batch size")
for batch_size, value in seen.items():
    print(f"seen: batch size {batch_size}: eval_loss {value:.3f}")
if abs(seen[8] - token_mean) > 1e-3 or min(abs(seen[1] - token_mean), abs(seen[1] - seen[2])) < 0.1:
    sys.exit("the behaviour has changed")
PYTHON
