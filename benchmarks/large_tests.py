"""CPU time and memory of the scores of one test, by its number of rows: a label, a ranked, a generated and an answered test.

Run from the repository's root: `PYTHONPATH=. python benchmarks/large_tests.py --rows 1000 10000 100000`; no model, no network.
Each score runs in a forked process, so that its peak memory is its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from workflow.evaluation import metric_names, metrics
from workflow.settings import Suite
from workflow.statistics import Resampling
from workflow.storage import tables

HOW = Resampling(resamples=1000, level=0.95, seed=0)
LABELS, WORDS = ("entailment", "neutral", "contradiction"), [f"word{number}" for number in range(500)]
TESTS = {"label": "mnli", "rank": "hellaswag", "generate": "xsum", "answer": "sciq"}


def predictions(kind: str, rows: int, seed: int = 0) -> pa.Table:
    """Invented predictions of a test of this kind, in the columns of `tables.PREDICTIONS`."""
    generator = np.random.default_rng(seed)
    make = {"label": _chosen, "rank": _chosen, "generate": _written, "answer": _answered}[kind]
    made = [_shared(kind, number) | make(generator, kind) for number in range(rows)]
    return pa.Table.from_pylist(made, schema=tables.PREDICTIONS)


def _shared(kind: str, number: int) -> dict[str, Any]:
    """Columns that all kinds have alike."""
    where = {"test": TESTS[kind], "test_format": "default", "shots": 0, "id": f"test-{number:06d}"}
    return where | {
        "prompt_tokens": 50,
        "shots_used": 0,
        "shown": [],
        "truncated": False,
        "cut_tokens": 0,
        "priors": [],
    }


def _chosen(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    """A label or one of four endings, right somewhat more often than by chance."""
    choices = LABELS if kind == "label" else [" ".join(generator.choice(WORDS, 8)) for _ in range(4)]
    gold, logprobs = int(generator.integers(len(choices))), generator.normal(-3, 1, len(choices))
    logprobs[gold] += 0.5
    found = {"choices": choices, "gold": gold, "reference": choices[gold], "output": choices[int(logprobs.argmax())]}
    priors = [-1.0, -1.5, -2.0] if kind == "label" else []
    return found | {"logprobs": logprobs.tolist(), "candidate_tokens": [8] * len(choices), "priors": priors}


def _written(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    """A summary that has about a fifth of its words in common with its reference."""
    reference, output = generator.choice(WORDS[:100], 22), generator.choice(WORDS[:100], 22)
    return {"reference": " ".join(reference), "output": " ".join(output), "choices": [], "logprobs": []}


def _answered(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    """A short answer, right in a third of all rows."""
    answer = " ".join(generator.choice(WORDS[:3], 2))
    output = answer if generator.random() < 1 / 3 else " ".join(generator.choice(WORDS[:3], 2))
    found = {"reference": answer, "choices": [answer], "output": output}
    return found | {"logprobs": [float(generator.normal(-4, 1))], "candidate_tokens": [2]}


def score(kind: str, rows: int, protocol: str) -> tuple[float, float]:
    """CPU seconds of a score, from predictions on disk to both tables on disk, and the process's peak memory in MB."""
    suite: Suite = {"protocol": protocol, "labels": "score"}  # type: ignore[typeddict-item]  # what scores read of it
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.parquet" for name in ("predictions", "scores", "items")]
        tables.save(predictions(kind, rows), paths[0])
        start = time.process_time()
        scores, items = metric_names.named(*metrics.scored(tables.read(paths[0]), suite, HOW))
        tables.write(scores, tables.SCORES, paths[1])
        tables.save(items, paths[2])
        return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str]) -> None:
    """Time the scores and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--protocols", nargs="+", choices=["sound", "published"], default=["sound", "published"])
    options = parser.parse_args(arguments)
    print("| test | protocol | rows | CPU s | peak MB |\n|---|---|---:|---:|---:|")
    for kind in options.kinds:
        for protocol in options.protocols:
            for rows in options.rows:
                with multiprocessing.get_context("fork").Pool(1) as pool:
                    seconds, peak = pool.apply(score, (kind, rows, protocol))
                print(f"| {kind} | {protocol} | {rows} | {seconds:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
