"""What the benchmarks of the hot paths share: paired runs, the machine's ceiling in the same run, a subject, real rows.

Ways of doing one thing run in turn, each once in a round, in an order that is reversed every other round; what else the
machine does then meets all of them alike, and a ratio within a round says more than seconds do. Reported are medians of
the rounds' ratios with their range.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from workflow import task
from workflow.data import corpora, prompts
from workflow.task import Example
from workflow.training import data_mix, pretraining

SUBJECT = {
    "vocabulary": 8192, "hidden": 384, "layers": 6, "heads": 6, "intermediate": 1536, "context": 2048, "seed": 0,
}  # fmt: skip
STEPS = 120  # after which the small model ends its texts
SIZE = 1024  # of the matrices that the ceiling is measured with


def parser(text: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have; text: the benchmark's docstring."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of rows in the hub's schema, as data_root")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--pairs", type=int, default=5, help="rounds")
    found.add_argument("--subject", type=Path, help="folder that keeps the small model")
    found.add_argument("--rows", type=int, default=200, help="rows of each task")
    return found


def chosen(text: str) -> tuple[str, int]:
    """A test and its demonstrations, as an option names them."""
    name, _, shots = text.partition(":")
    return name, int(shots or 0)


def ceiling() -> float:
    """Operations a second of torch's own product of two square matrices in fp32: the best of several."""
    a, b = (torch.randn(SIZE, SIZE) for _ in range(2))
    return 2 * SIZE**3 / min(timed(lambda: a @ b)[0] for _ in range(8))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a run takes, and what it gives; of one thread those that it computes, not those that it waits its turn."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    found = run()
    return clock() - start, found


def paired(ways: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every way in every round, and what each gave in the last; one run of each before that is not counted."""
    found = {name: run() for name, run in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            taken, found[name] = timed(ways[name])
            seconds[name].append(taken)
    return seconds, found


def ratios(seconds: Mapping[str, Sequence[float]], name: str, peer: str) -> list[float]:
    """How many times as fast as its peer a way was, round by round."""
    return [theirs / own for own, theirs in zip(seconds[name], seconds[peer], strict=True)]


def compared(seconds: Mapping[str, Sequence[float]], peer: str) -> list[dict[str, str]]:
    """A row for each way: median seconds, and the median ratio to the peer with its range."""
    rows = []
    for name, own in seconds.items():
        found = ratios(seconds, name, peer)
        ratio = f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"
        rows.append({"way": name, "seconds": f"{statistics.median(own):.2f}", f"× {peer}": ratio})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def examples(data: Path, name: str, split: str, limit: int | None = None) -> list[tuple[str, Example]]:
    """The first rows of a task's split in canonical form, each (id, Example)."""
    read = task.load(name)
    found = task.canonical(read, split, task.read_folder(data, read, name, split))
    return [(row["id"], task.example_of(row)) for row in itertools.islice(found, limit)]


def words(data: Path, context: int = SUBJECT["context"]) -> Any:
    """A byte-level BPE tokenizer of 8,192 tokens, trained on the data folder's pre-training text."""
    paths = corpora.files(data / "pretraining", None)
    return pretraining.train_tokenizer(
        [document.text for document in corpora.documents(paths)], SUBJECT["vocabulary"], context
    )


def read_words(folder: Path) -> Any:
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def subject(tokenizer: Any) -> Any:
    """A model of OLMo's architecture with 17 M parameters of random weights, in evaluation mode."""
    return pretraining.initial(SUBJECT, tokenizer).eval()


def parameters(model: Any) -> int:
    """Parameters that a token goes through: all but input embeddings that are not tied."""
    total = sum(weight.numel() for weight in model.parameters())
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return total if tied else total - model.get_input_embeddings().weight.numel()


def written_on(data: Path, folder: Path) -> Any:
    """The subject after STEPS steps of 512 tokens on questions and summaries, so that it ends texts; kept in the folder."""
    from transformers.models.olmo.modeling_olmo import OlmoForCausalLM

    if not (folder / "config.json").is_file():
        tokenizer = words(data)
        texts = [
            prompts.prompt(task.load(name), _short(example.fields), "default") + prompts.completion(example.answer)
            for name in ("social_iqa", "xsum")
            for _, example in examples(data, name, "train", 1000)
        ]
        documents = [corpora.Document("tasks", str(number), text) for number, text in enumerate(texts)]
        recipe = SUBJECT | {"objective": "clm", "batch": 4, "sequence": 128, "weight_decay": 0.0}
        model = pretraining.initial(recipe, tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=pretraining.BETAS)
        rows = pretraining.batches(data_mix.encode(tokenizer, documents, recipe), recipe, tokenizer)
        for _ in range(STEPS):
            pretraining.update(model, optimizer, next(rows), 1e-3, 1.0, torch.float32)
        pretraining.save(model, tokenizer, folder)
    return OlmoForCausalLM.from_pretrained(folder).eval()


def _short(fields: Mapping[str, str]) -> dict[str, str]:
    """Fields of at most thirty words."""
    return {name: " ".join(text.split()[:30]) for name, text in fields.items()}
