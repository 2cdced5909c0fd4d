"""What jobs hold in memory: fine-tuning, prediction and indicators of models of growing size, each job by itself.

Run from the repository's root: `PYTHONPATH=. python benchmarks/memory.py`; `--sizes 1 2 3` chooses models, `--tokens` the longest
text. Models are OLMo's with random weights and tied embeddings, rows are random words that fill the longest text, so nothing is
downloaded. Each job is a real one of Snakemake. Prints a Markdown table: the most memory that the job's process had resident
(`ru_maxrss`), and what `workflow/planning/resources.py` asks for. On a CPU weights and activations are in the host's memory, so
the figure to compare with is the GPU memory that a job asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SHAPES = {1: (256, 4), 2: (512, 8), 3: (768, 12), 4: (1024, 16)}  # width and layers
VOCABULARY = 50304
WORDS = [
    f"{first}{second}"
    for first in "bdfgklmnprst"
    for second in ("a", "e", "i", "o", "u", "ack", "end", "in", "op", "ut")
]
WHOLE = "train=none/format=none/recipe=none/seed=0"
# Runs a command and prints the most memory that any process below it had resident, in kB.
PEAK = (
    "import resource, subprocess, sys; ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(ended.returncode)"
)


def checkpoint(folder: Path, width: int, layers: int, context: int) -> int:
    """Write a model with random weights; returns its number of parameters."""
    from transformers import OlmoConfig, OlmoForCausalLM

    from workflow.training.pretraining import train_tokenizer

    tokenizer = train_tokenizer([" ".join(WORDS)], 400, context)
    model = OlmoForCausalLM(
        OlmoConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=width // 64, max_position_embeddings=context, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def rows(folder: Path, tokens: int) -> None:
    """Write rows of XSum's schema, and documents, that are at least that many tokens long."""
    (folder / "xsum").mkdir(parents=True)
    (folder / "text/pages").mkdir(parents=True)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=tokens)) for _ in range(16)]
    for split in ("train", "test"):
        lines = [json.dumps({"id": str(n), "document": text, "summary": "a bend"}) for n, text in enumerate(texts)]
        (folder / "xsum" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    documents = "\n".join(json.dumps({"text": text}) for text in texts)
    (folder / "text/pages/validation.jsonl").write_text(documents, encoding="utf-8")


def study(sizes: Sequence[int], tokens: int, batch: int) -> dict[str, Any]:
    """A config with one family for each size; a tuning is one step on a batch of the longest texts."""
    shared = {"examples": batch, "epochs": 1, "batch": batch, "max_tokens": tokens}
    fitting = {"limit": 16, "new_tokens": 8, "batch_tokens": batch * tokens}
    return {
        "families": {f"size{size}": {"source": "folder", "path": f"checkpoints/{size}"} for size in sizes},
        "data_root": "data",
        "recipes": {"full": shared, "lora": {"method": "lora", **shared}, "half": {"precision": "bf16", **shared}},
        "models": [{"train": ["xsum"], "recipes": ["full", "lora", "half"]}],
        "suites": {"fp32": {"tests": ["xsum"], **fitting}, "bf16": {"tests": ["xsum"], "precision": "bf16", **fitting}},
        "indicators": {
            "ppl": {"measure": "clm", "corpus": "text", "window": tokens, "batch_tokens": batch * tokens},
        },
    }


def jobs(size: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What is measured of a model: a label, the file that the job writes, its wildcards."""
    base = f"family=size{size}/step=1"
    for recipe, label in (("full", "fine-tune, fp32"), ("half", "fine-tune, bf16"), ("lora", "fine-tune, LoRA, fp32")):
        path = f"resources/models/{base}/train=xsum/format=default/recipe={recipe}/seed=0"
        yield label, path, {"family": f"size{size}", "recipe": recipe}
    for suite in ("fp32", "bf16"):
        path = f"results/predictions/{base}/{WHOLE}/suite={suite}/tests=all/part.parquet"
        yield f"predict, {suite}", path, {"family": f"size{size}", "suite": suite, "train": "none", "tests": "all"}
    yield "indicator clm, fp32", f"results/losses/{base}/part.parquet", {"family": f"size{size}"}


def peak(folder: Path, target: str) -> float:
    """Make one target; GB that the largest process held for it."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--cores", "1", target]
    ended = subprocess.run([sys.executable, "-c", PEAK, *command], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    return int(ended.stdout) * 1024 / 1e9


def asked(folder: Path, config: dict[str, Any], label: str, wildcards: dict[str, str]) -> float:
    """GB of GPU memory that a job asks for at its first attempt."""
    from workflow.planning import resources

    stage = {"fine-tune": resources.tuning, "predict": resources.prediction, "indicator": resources.measuring}
    base = folder / f"resources/bases/family={wildcards['family']}/step=1/base.json"
    files = SimpleNamespace(base=str(base), task=None, tasks=[], corpora=[])
    return stage[label.split(",")[0].split()[0]](config, SimpleNamespace(**wildcards), files)["gpu_mem_mb"] / 1e3


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=[*SHAPES], default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows(folder / "data", options.tokens)
        written = study(options.sizes, options.tokens, options.batch)
        (folder / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
        counts = {
            size: checkpoint(folder / f"checkpoints/{size}/step1", *SHAPES[size], options.tokens)
            for size in options.sizes
        }
        print("| parameters, million | job | held, GB | asked for, GB |\n|---:|---|---:|---:|")
        for size, count in counts.items():
            measured(folder, written, size, count)


def measured(folder: Path, written: dict[str, Any], size: int, count: int) -> None:
    """Print a line for each job of a model."""
    from workflow.planning import config_checks

    for label, target, wildcards in jobs(size):
        held = peak(folder, target)
        with contextlib.chdir(folder):
            need = asked(folder, config_checks.read(written), label, wildcards)
        print(f"| {count / 1e6:.0f} | {label} | {held:.1f} | {need:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
