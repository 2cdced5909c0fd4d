"""Does replay keep the text loss of a fine-tuned model low? The mini world, with and without `replay`, several seeds.

    python benchmarks/replay.py STUDY [--seeds 3] [--share 0.01 0.05] [--step 1500]

STUDY: folder of a finished default study, whose base and tasks are read. For each seed and task the same base is fine-tuned by
the recipe of the study without and with replay. Printed: loss on validation text of the mini world in bits per byte, and the
mean loss of the right answers of 60 test rows of the task, in nats per token.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np

from workflow import task
from workflow.data import corpora
from workflow.indicators import measuring
from workflow.indicators.measures import clm
from workflow.models import loading
from workflow.models.encoding import context_length, padding
from workflow.study import config as configs
from workflow.training import finetuning, replay, saved_state

RECIPE = {"learning_rate": 3.0e-4, "epochs": 5, "examples": 240, "max_tokens": 256}
TEXT = {"measure": "clm", "corpus": "miniworld", "documents": 300, "window": 128, "seed": 0, "batch_tokens": 8192}


def tuned(study: Path, step: int, name: str, share: float, seed: int) -> tuple[float, float]:
    """Fine-tune the base on a task; return bits per byte of validation text, and nats per token of held-out rows."""
    settings = RECIPE | ({"replay": share} if share else {})
    recipe = configs.recipe(settings)
    base = {"path": str(study / f"resources/pretrained/family=mini/step={step}"), "files": {}}
    model, tokenizer = loading.untouched(base)
    source, train, test = task.examples(name, study / f"resources/tasks/{name}.parquet")
    order = np.random.default_rng(recipe["sample_seed"]).permutation(len(train))
    context = context_length(model)
    parts = [[train[index] for index in order[: recipe["examples"]]], test[:60]]
    rows, held = (
        list(finetuning.prepared_rows(tokenizer, context, source, part, "default", recipe).values()) for part in parts
    )
    texts = study / "resources/miniworld/text"
    if share:
        documents = list(corpora.documents(corpora.files(texts, None)))
        rows = [*rows, *replay.rows(tokenizer, documents, len(rows), context, recipe)]
    with tempfile.TemporaryDirectory() as folder:
        state = saved_state.State(Path(folder) / "state.safetensors", "benchmark")
        losses = finetuning.tune_and_validate(model, rows, held, recipe, seed, padding(tokenizer), state)
    documents = list(corpora.documents(corpora.files(texts, None, "validation")))
    read = clm.measure(measuring.LoadedBase(model, tokenizer), TEXT, measuring.MeasuredTexts(documents, {})).losses
    bits = sum(loss.nll for loss in read) / math.log(2) / sum(loss.bytes for loss in read)
    return bits, float(np.mean([row["loss"] for row in losses]))


def main() -> None:
    """Print a line for each task and share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--step", type=int, default=1500)
    parser.add_argument("--tasks", nargs="+", default=["mini_inference"])
    asked = parser.parse_args()
    print("| task | replay | bits per byte of text, each seed | loss on test rows, each seed |\n|---|---:|---|---|")
    for name in asked.tasks:
        for share in (0.0, *asked.share):
            pairs = [tuned(asked.study, asked.step, name, share, seed) for seed in range(asked.seeds)]
            bits, losses = (", ".join(f"{value:.3f}" for value in values) for values in zip(*pairs, strict=True))
            print(f"| {name} | {share:g} | {bits} | {losses} |", flush=True)


if __name__ == "__main__":
    main()
