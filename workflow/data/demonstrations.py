"""Which rows of a task are shown and which are read: drawn by a seed, the same wherever it is asked. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workflow.task import Example

Rows = Sequence[tuple[str, Example]]


def demonstrations(train: Rows, test: Rows, shots: int, seed: int, protocol: str) -> tuple[Rows, set[str]]:
    """Demonstrations, and the ids of test rows that must not be scored because they are among them.

    `published`: the first rows of the test split, which are scored all the same (arXiv 2408.06663, released code).
    `sound`: drawn by the seed from the training split; where a task has none, from test rows, which are then not scored.
    """
    if protocol == "published":
        return test[:shots], set()
    shown = drawn(train or test, shots, seed)
    return shown, {row for row, _ in shown} if not train else set()


def drawn(pool: Rows, shots: int, seed: int) -> Rows:
    """Demonstrations from the rows of a split, as many as there are at most."""
    return random.Random(seed).sample(list(pool), min(shots, len(pool)))


def sample(rows: Rows, limit: int | None, seed: int) -> Rows:
    """At most `limit` rows drawn by the seed, in the order they had."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))
    return [rows[number] for number in chosen]
