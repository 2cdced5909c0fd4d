"""Models under different names that are one and the same, or were evaluated as if they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow import grid
from workflow.auditing import Material, finding, listed, method_of

TIES = 3  # tests on which two models have exactly one value: twice happens by rounding, a third time hardly


def check(material: Material) -> Iterator[dict[str, Any]]:
    """Errors for bases with the same weights, models with the same log-probabilities, and imported models whose scores agree."""
    yield from _weights(material.bases())
    yield from _predictions(material)
    yield from _scores(material.imported)


def _weights(bases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    rows = [
        {
            "family": base["family"],
            "step": base["step"],
            "weights": str(sorted(f["sha256"] for name, f in base["files"].items() if name.endswith(".safetensors"))),
        }
        for base in bases
    ]
    for _, same in pd.DataFrame(rows, columns=["family", "step", "weights"]).groupby("weights"):
        if len(same) > 1:
            evidence = f"{len(same)} bases have the same weights: {_named(same)}"
            yield finding("error", same, evidence, value=float(len(same)), limit=1.0, n=len(rows))


def _predictions(material: Material) -> Iterator[dict[str, Any]]:
    """Cells of a suite that were put to the same tests and have the same log-probabilities in every row."""
    rows = []
    for test in material.predictions("id", "logprobs"):
        if len(test["logprobs"].iloc[0]):
            content = " ".join(test["id"]).encode() + np.concatenate(list(test["logprobs"])).tobytes()
            keys = {key: test[key].iloc[0] for key in (*grid.CELL_KEYS, *grid.TEST_KEYS)}
            rows.append(keys | {"content": hashlib.sha256(content).hexdigest()})
    table = pd.DataFrame(rows, columns=[*grid.CELL_KEYS, *grid.TEST_KEYS, "content"])
    cells = table.groupby(grid.CELL_KEYS, as_index=False).agg(content=("content", "|".join))
    for _, same in cells.groupby(["suite", "content"]):
        if len(same) > 1:
            evidence = f"{len(same)} models have the same log-probabilities in every row: {_named(same)}"
            yield finding("error", same, evidence, value=float(len(same)), limit=1.0, n=len(cells))


def _scores(scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Sets of imported models that agree to the last digit on several tests; constant labels, 0 and 1 agree by nature."""
    label = scores["test"].map(method_of) == "label"
    scores = scores[~label & ~scores["value"].isin([0.0, 1.0])]
    for _, rows in scores.groupby(["family", "suite"]):
        table = rows.pivot_table(index=grid.CELL_KEYS, columns=[*grid.TEST_KEYS, "metric"], values="value")
        values = table.to_numpy(dtype=float)
        ties = [np.flatnonzero((values[i] == values[i + 1 :]).sum(axis=1) >= TIES) + i + 1 for i in range(len(values))]
        for models in _connected([(i, int(j)) for i, own in enumerate(ties) for j in own]):
            same = pd.DataFrame(list(table.index[models]), columns=grid.CELL_KEYS)
            parts = _common(table.iloc[models])
            evidence = f"{len(same)} models have the same scores to the last digit ({listed(parts)}): {_named(same)}"
            yield finding("error", same, evidence, value=float(len(parts)), limit=float(TIES), n=len(table))


def _common(table: pd.DataFrame) -> list[str]:
    """The tests on which at least two of the models have one value, with how many have it."""
    counts = [(column[0], table[column].value_counts()) for column in table]
    return [f"{test} {own.index[0]:.6f} in {own.iloc[0]}" for test, own in counts if len(own) and own.iloc[0] > 1]


def _connected(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Numbers that pairs bind together, directly or by way of others."""
    groups: list[set[int]] = []
    for pair in pairs:
        joined = set(pair).union(*(group for group in groups if group & set(pair)))
        groups = [*(group for group in groups if not group & joined), joined]
    return [sorted(group) for group in groups]


def _named(models: pd.DataFrame) -> str:
    """Models by step, and by what they were tuned on where that is known."""
    rows = models.to_dict("records")
    names = [
        f"step {row['step']}" + (f" tuned on {row['train']}" if row.get("train", "none") != "none" else "")
        for row in rows
    ]
    families = models["family"].unique()
    return listed(names, 9) + (f" of {families[0]}" if len(families) == 1 else f" of {listed(families)}")
