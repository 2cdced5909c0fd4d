"""Log-probabilities of labels and choices against lm-evaluation-harness: real rows, the same model, tokenizer and texts.

Run from the repository's root: `PYTHONPATH=. python benchmarks/scoring.py --data FOLDER --subject FOLDER`; `--threads 2`
for two threads; `--model FOLDER` for a checkpoint of another architecture. Prints Markdown tables. On a GPU:
`python -m benchmarks.gpu`.

Both sides start from texts and end with log-probabilities: tokenisation counts. Ours goes through `predict_test` and so
makes the priors of labels as well. The harness gets one request for each label or
choice, as its own tasks make them, in batches of 8.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import pairing

from workflow import task
from workflow.data import prompts
from workflow.evaluation import prediction
from workflow.evaluation.prediction import Evaluation
from workflow.models.encoding import Framing, fitted
from workflow.task import Example

# task, demonstrations
TESTS = (("mnli", 0), ("mnli", 4), ("hellaswag", 0), ("arc_easy", 0), ("arc_challenge", 0))
PEER = "lm-eval, batch 8"
SUITE = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 60, "batch_tokens": 8192}
Rows = Sequence[tuple[str, Example]]


def ours(model: Any, tokenizer: Any, name: str, rows: tuple[Rows, Rows], shots: int) -> list[list[float]]:
    """Log-probabilities of each row's candidates by Tunecast."""
    run = Evaluation(model, tokenizer, SUITE)
    found = prediction.predict_test(run, task.load(name), *rows, "default", shots)
    return [row["logprobs"] for row in found]


def texts(tokenizer: Any, name: str, rows: tuple[Rows, Rows], shots: int) -> list[tuple[str, list[str]]]:
    """Each row's prompt and the texts that may follow it."""
    shown, _ = prediction.demonstrations(*rows, shots, SUITE["seed"], "sound")
    framing = Framing(task.load(name), "default", "sound", tuple(example for _, example in shown), None)
    return [
        (fitted(tokenizer, framing, example).text, [prompts.completion(choice) for choice in example.choices])
        for _, example in rows[1]
    ]


def harness(model: Any, tokenizer: Any) -> Any:
    """lm-evaluation-harness's wrapper around the model."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")


def theirs(wrapper: Any, asked: Sequence[tuple[str, list[str]]]) -> list[list[float]]:
    """The same by lm-evaluation-harness."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(prompt, text), idx=number)
        for number, (prompt, candidates) in enumerate(asked)
        for text in candidates
    ]
    found = iter(wrapper.loglikelihood(requests, disable_tqdm=True))
    return [[next(found)[0] for _ in candidates] for _, candidates in asked]


def agreement(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The largest difference, and how many rows are predicted otherwise."""
    pairs = list(zip(found, expected, strict=True))
    gap = max(abs(a - b) for own, other in pairs for a, b in zip(own, other, strict=True))
    return gap, sum(own.index(max(own)) != other.index(max(other)) for own, other in pairs)


def compare(options: Any) -> None:
    """Paired runs on a CPU."""
    model, tokenizer = pairing.prepared(options, [name for name, _ in options.tests])
    print(pairing.machine())
    print(f"{pairing.parameters(model) / 1e6:.1f} M parameters, {options.threads} threads, ", end="")
    print(f"matmul ceiling {pairing.ceiling() / 1e9:.0f} GFLOP/s\n")
    for name, shots in options.tests:
        read = task.load(name)
        rows = [], pairing.examples(options.data, name, read.test, options.rows)
        if shots:
            rows = pairing.examples(options.data, name, read.train, 500), rows[1]
        asked = texts(tokenizer, name, rows, shots)
        wrapper = harness(model, tokenizer)
        ways = {"Tunecast": lambda name=name, rows=rows, shots=shots: ours(model, tokenizer, name, rows, shots)}
        ways[PEER] = lambda wrapper=wrapper, asked=asked: theirs(wrapper, asked)
        seconds, found = pairing.paired(ways, options.pairs)
        gap, flips = agreement(found["Tunecast"], found[PEER])
        print(f"{name}, {shots} shots, {len(rows[1])} rows: largest difference {gap:.1e}, {flips} other predictions\n")
        print(pairing.table(pairing.compared(seconds, PEER)) + "\n", flush=True)
    halved(model, tokenizer, options)


def halved(model: Any, tokenizer: Any, options: Any) -> None:
    """How many of a thousand predictions are others in bf16."""
    for name, shots in options.tests:
        read = task.load(name)
        rows = tuple(pairing.examples(options.data, name, split, options.rows) for split in (read.train, read.test))
        whole = ours(model.float(), tokenizer, name, rows, shots)
        _, flips = agreement(ours(model.bfloat16(), tokenizer, name, rows, shots), whole)
        print(f"bf16, {name}, {shots} shots: {1000 * flips / len(whole):.0f} flips per 1,000 rows")
    model.float()


def main() -> None:
    """Print a table for each test."""
    parser = pairing.parser(__doc__)
    parser.add_argument(
        "--tests", nargs="*", default=TESTS, type=pairing.chosen, help="such as mnli:4, for 4 demonstrations"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compare(options)


if __name__ == "__main__":
    main()
