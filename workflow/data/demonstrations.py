"""Samples few-shot examples and test rows with a seed; the same everywhere. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workflow import task
from workflow.task import Example

Rows = Sequence[tuple[str, Example]]


def demonstrations(train: Rows, test: Rows, shots: int, seed: int, protocol: str) -> tuple[Rows, set[str]]:
    """Few-shot examples, and ids of the test rows among them, which must not be scored.

    `published`: the first rows of the test split, which are scored all the same (released code of arXiv 2408.06663).
    `sound`: sampled by the seed from the training split; for a task without one, from test rows, which are then not scored.
    """
    if protocol == "published":
        return test[:shots], set()
    shown = drawn(train or test, shots, seed)
    return shown, {row for row, _ in shown} if not train else set()


FILE = "file"  # as a number of few-shot examples: what a task file of lm-evaluation-harness says


def shots(test: str, asked: Sequence[int | str]) -> list[int]:
    """Numbers of few-shot examples of a test in a suite; `file` stands for `num_fewshot` of its task file, 0 if it has none."""
    harness = task.load(test).lm_eval if FILE in asked else None
    own = (harness.shots if harness else None) or 0
    return list(dict.fromkeys(number if isinstance(number, int) else own for number in asked))


def drawn(pool: Rows, shots: int, seed: int) -> Rows:
    """Few-shot examples sampled from the rows of a split, or all rows if there are fewer."""
    return random.Random(seed).sample(list(pool), min(shots, len(pool)))


def sample(rows: Rows, limit: int | None, seed: int) -> Rows:
    """At most `limit` rows, sampled by the seed, in their original order."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[number] for number in chosen]
