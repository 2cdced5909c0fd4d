"""Rows of `tables.ITEMS` as runs: the values of one model on one test in one metric.

With a hundred thousand tested models the table has tens of millions of rows, which would take tens of GB as a frame. It is
read piece by piece, and only the keys, row names and values of each run stay in memory.
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
METRIC_KEYS = ["family", "suite", "test", "metric"]  # one metric of these is the primary metric of the test
KEYS = ["family", "step", "train", "format", "recipe", "seed", "suite", "test", "test_format", "shots", "metric"]


class Run(NamedTuple):
    """Consecutive rows that differ in `id` alone. keys: KEYS and their values; ids: names of the rows; values: shape (rows,)."""

    keys: dict[str, Any]
    ids: tuple[str, ...]
    values: NDArray[np.float64]


def primary(items: Items) -> set[tuple[Any, ...]]:
    """The METRIC_KEYS of each test's primary metric (`metric_names.primary`)."""
    heads = {head for batch in _batches(items, METRIC_KEYS) for _, _, head in _heads(batch, METRIC_KEYS)}
    rows = metric_names.primary(pd.DataFrame(list(heads), columns=METRIC_KEYS))
    return set(rows[METRIC_KEYS].itertuples(index=False, name=None))


def runs(items: Items, wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Run]:
    """The runs with wanted keys, in the order of their rows. Rows of one model and test may be in several runs."""
    for batch in _batches(items, [*KEYS, "id", "value"]):
        ids, values = batch["id"].to_numpy(dtype=object), batch["value"].to_numpy(dtype=float)
        for start, end, head in _heads(batch, KEYS):
            keys = dict(zip(KEYS, head, strict=True))
            if wanted(keys):
                yield Run(keys, tuple(ids[start:end]), values[start:end].copy())


def _batches(items: Items, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    return tables.batches(items, columns) if isinstance(items, Path) else iter([items])


def _heads(batch: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """First row, last row + 1 and keys of each run of a batch."""
    changed = np.ones(len(batch), dtype=bool)
    codes = [_codes(batch[key]) for key in keys]
    changed[1:] = np.any([values[1:] != values[:-1] for values in codes], axis=0)
    starts = np.flatnonzero(changed)
    ends = np.append(starts, len(batch))[1:]
    heads = [batch[key].iloc[starts].tolist() for key in keys]
    return zip(starts, ends, zip(*heads, strict=True), strict=True)


def _codes(column: pd.Series) -> NDArray[Any]:
    """Numbers that differ where the values of a column differ."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy()
    return pd.factorize(column)[0]
