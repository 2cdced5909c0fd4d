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
from workflow.models.engine import products
from workflow.task import Example
from workflow.training import data_mix, pretraining

SUBJECT = {
    "vocabulary": 8192, "hidden": 384, "layers": 6, "heads": 6, "intermediate": 1536, "context": 2048, "seed": 0,
}  # fmt: skip
STEPS = 120  # after which the small model ends its texts
ROWS = (8, 64, 256, 1024)  # that the rates of both libraries are measured with
FLAGS = ("avx", "amx", "fma", "f16c", "sve", "asimd", "bf16")
SIZE = 1024  # of the matrices that the ceiling is measured with


def parser(text: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have; text: the benchmark's docstring."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder of rows in the hub's schema, as data_root")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--pairs", type=int, default=5, help="rounds")
    found.add_argument("--subject", type=Path, help="folder that keeps the small model")
    found.add_argument(
        "--model", type=Path, help="folder of a checkpoint of any architecture, instead of the small model"
    )
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


def machine() -> str:
    """The CPU, its flags that products depend on, and how fast both libraries multiply few and many rows."""
    known = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line
    )
    facts = {name.strip(): own.strip() for name, own in known.items()}
    flags = [name for name in facts.get("flags", "").split() if name.startswith(FLAGS)]
    lines = [f"{facts.get('model name', 'unknown CPU')}; {' '.join(flags) or 'no flags of vector units'}"]
    weight = torch.randn(SIZE, SIZE)
    for name, product in (("torch (MKL)", torch.nn.functional.linear), ("oneDNN", products.product)):
        rates = [f"{_rate(product, torch.randn(rows, SIZE), weight) / 1e9:.0f}" for rows in ROWS]
        lines.append(f"{name}: {' / '.join(rates)} GFLOP/s in fp32 at {' / '.join(map(str, ROWS))} rows")
    return "\n".join(lines) + "\n"


def _rate(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: torch.Tensor, weight: torch.Tensor
) -> float:
    """Operations a second of a product: the best of several."""
    seconds = min(timed(lambda: [product(rows, weight) for _ in range(8)])[0] for _ in range(5))
    return 8 * 2 * rows.numel() * len(weight) / max(seconds, 1e-9)


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


def words(data: Path, tasks: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer of 8,192 tokens, trained on the data folder's pre-training text, or on rows of tasks."""
    if (data / "pretraining").is_dir():
        texts = [document.text for document in corpora.documents(corpora.files(data / "pretraining", None))]
    else:
        texts = written(data, tasks)
    return pretraining.train_tokenizer(texts, SUBJECT["vocabulary"], SUBJECT["context"])


def written(data: Path, tasks: Sequence[str]) -> list[str]:
    """Short prompts with their answers, of the first rows of tasks."""
    splits = {name: task.load(name).train or task.load(name).test for name in dict.fromkeys(tasks)}
    return [
        prompts.prompt(task.load(name), _short(example.fields), "default") + prompts.completion(example.answer)
        for name, split in splits.items()
        for _, example in examples(data, name, str(split), 1000)
    ]


def prepared(options: argparse.Namespace, tasks: Sequence[str]) -> tuple[Any, Any]:
    """The model of a benchmark in evaluation mode and its tokenizer: those of --model, else the small model (`written_on`)."""
    from transformers import AutoModelForCausalLM

    if options.model is None:
        return written_on(options.data, options.subject, tasks), read_words(options.subject)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True)
    return model.eval(), read_words(options.model)


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


def written_on(data: Path, folder: Path, tasks: Sequence[str]) -> Any:
    """The subject after STEPS steps of 512 tokens on rows of tasks, so that it ends texts; kept in the folder."""
    from transformers.models.olmo.modeling_olmo import OlmoForCausalLM

    if not (folder / "config.json").is_file():
        tokenizer = words(data, tasks)
        documents = [corpora.Document("tasks", str(n), text) for n, text in enumerate(written(data, tasks))]
        recipe = SUBJECT | {"objective": "clm", "batch": 4, "sequence": 128, "weight_decay": 0.0}
        model = pretraining.initial(recipe, tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=pretraining.BETAS)
        rows = pretraining.batches(data_mix.encode(tokenizer, documents, recipe), recipe, tokenizer)
        for _ in range(STEPS):
            pretraining.update(model, optimizer, next(rows), 1e-3, 1.0, torch.float32)
        pretraining.save(model, tokenizer, folder, history=[])
    return OlmoForCausalLM.from_pretrained(folder).eval()


def _short(fields: Mapping[str, str]) -> dict[str, str]:
    """Fields of at most thirty words."""
    return {name: " ".join(text.split()[:30]) for name, text in fields.items()}
