"""Rows of `tables.ITEMS` as runs: the values of one model on one test in one metric.

A table of a hundred thousand tested models has tens of millions of rows, which would take tens of GB as a frame. It is
read piece by piece, and of each run only its keys, row names and values are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.evaluation import metric_names
from workflow.storage import tables

Items: TypeAlias = pd.DataFrame | Path  # a table of items, or the file that it is in
METRIC_KEYS = ["family", "suite", "test", "metric"]  # of which one is the primary metric of the test
KEYS = ["family", "step", "train", "format", "recipe", "seed", "suite", "test", "test_format", "shots", "metric"]


class Run(NamedTuple):
    """Consecutive rows that differ in `id` alone. keys: KEYS and their values; ids: names of the rows; values: shape (rows,)."""

    keys: dict[str, Any]
    ids: tuple[str, ...]
    values: NDArray[np.float64]


def primary(items: Items) -> set[tuple[Any, ...]]:
    """The METRIC_KEYS of each test's primary metric (`metric_names.primary`)."""
    found = {head for batch in _batches(items, METRIC_KEYS) for _, _, head in _heads(batch, METRIC_KEYS)}
    kept = metric_names.primary(pd.DataFrame(list(found), columns=METRIC_KEYS))
    return set(kept[METRIC_KEYS].itertuples(index=False, name=None))


def runs(items: Items, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Run]:
    """The runs whose keys are wanted, in the order of their rows; rows of one model and test may be in several runs."""
    for batch in _batches(items, [*KEYS, "id", "value"]):
        ids, values = batch["id"].to_numpy(dtype=object), batch["value"].to_numpy(dtype=float)
        for start, end, head in _heads(batch, KEYS):
            keys = dict(zip(KEYS, head, strict=True))
            if wanted(keys):
                yield Run(keys, tuple(ids[start:end]), values[start:end].copy())


def _batches(items: Items, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    return tables.batches(items, columns) if isinstance(items, Path) else iter([items])


def _heads(batch: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Start, end and keys of each run of a batch."""
    changed = np.ones(len(batch), dtype=bool)
    codes = [_codes(batch[key]) for key in keys]
    changed[1:] = np.any([own[1:] != own[:-1] for own in codes], axis=0)
    starts = np.flatnonzero(changed)
    ends = np.append(starts, len(batch))[1:]
    heads = [batch[key].iloc[starts].tolist() for key in keys]
    return zip(starts, ends, zip(*heads, strict=True), strict=True)


def _codes(column: pd.Series) -> NDArray[Any]:
    """Numbers that differ where the values of a column do."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy()
    return pd.factorize(column)[0]
