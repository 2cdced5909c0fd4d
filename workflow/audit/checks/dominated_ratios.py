"""Mean relative changes that a single score determines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import AuditInputs, finding, method_of

SHARE = 0.5  # a mean that one cell moves by half mostly reflects that cell
POINTS = 0.1  # of the base's score: smaller shifts do not matter, even if the sign changes

LEVELS = {"all steps and pairs": "direction", "this pair": "pair", "this step": "step"}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each cell without which a mean of ratios changes its sign, or by more than half.

    Ratios of change (tuned - base) / base are averaged as in arXiv 2408.06663 (version 5, equation 1 as computed): from
    tests with labels to free text and from free text to labels, over all steps and pairs, each pair and each step.
    """
    for _, cells in _cells(material).groupby(["family", "suite", "test_format", "shots", "direction"]):
        means = {level: _leaving_one_out(cells, key) for level, key in LEVELS.items()}
        for cell in cells.index[np.any([mean["dominated"] for mean in means.values()], axis=0)]:
            yield _finding(cells.loc[[cell]], len(cells), {level: mean.loc[cell] for level, mean in means.items()})


def _cells(material: AuditInputs) -> pd.DataFrame:
    """Ratios of change of pairs that cross between labels and free text, tested in the format that was tuned in."""
    table = material.changes
    method = {test: method_of(test) for test in {*table["train"], *table["test"]}}
    direction = table["train"].map(method) + " to " + table["test"].map(method)
    crossing = direction.isin(["label to generate", "generate to label"]) & table["test"].isin(table["train"])
    cells = table.assign(direction=direction, pair=table["train"] + " to " + table["test"])
    cells = cells[crossing & (table["base"] > 0) & (table["format"] == table["test_format"])]
    return cells.assign(ratio=cells["value"] / cells["base"] - 1).reset_index(drop=True)


def _leaving_one_out(cells: pd.DataFrame, key: str) -> pd.DataFrame:
    """For each cell: the mean ratio of all cells with its key, their number, the mean without it, and whether it dominates.

    Only the cell that moves a mean most can dominate it.
    """
    ratios = cells.groupby(key)["ratio"]
    mean, count = ratios.transform("mean"), ratios.transform("size")
    without = (mean * count - cells["ratio"]) / (count - 1).where(count > 1)
    moved = (mean - without).abs()
    most = moved == moved.groupby(cells[key]).transform("max")
    turned = (mean * without < 0) | (moved > SHARE * mean.abs())
    return pd.DataFrame(
        {"mean": mean, "count": count, "without": without, "dominated": most & turned & (moved > POINTS)}
    )


def _finding(cell: pd.DataFrame, cells: int, means: dict[str, pd.Series]) -> dict[str, Any]:
    row = cell.iloc[0]
    texts = [
        f"{mean['mean']:+.1%} over {level} ({mean['count']} cells) and {mean['without']:+.1%} without it"
        for level, mean in means.items()
    ]
    evidence = (
        f"{row['pair']} at step {row['step']} has a ratio of {row['ratio']:+.1%}, since the base scores {row['base']:.4f} and "
        f"the tuned model {row['value']:.4f}; the mean ratio is {'; '.join(texts)}"
    )
    return finding("warning", cell, evidence, value=float(row["ratio"]), limit=SHARE, n=cells)
