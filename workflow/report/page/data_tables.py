"""The tables of a study on the page: first rows with the important columns first, and whole tables to download."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workflow.report import selection
from workflow.report.page.inputs import PageInputs

ROWS = 100  # of a table on the page
FIRST = (
    *(
        "severity",
        "check",
        "evidence",
        "section",
        "statement",
        "task",
        "topic",
        "analysis",
        "estimator",
        "target",
        "forecaster",
    ),
    *(
        "family",
        "step",
        "train",
        "recipe",
        "seed",
        "suite",
        "test",
        "metric",
        "value",
        "low",
        "high",
        "chance",
        "majority",
    ),
    *("probability", "n", "p_value"),
)
LATE = (
    "warnings",
    "table",
    "filter",
    "format",
    "test_format",
    "shots",
    "better",
    "part_of",
    "primary",
    "seed_variance",
)
BUDGET = 6_000_000  # characters of all downloads in the page; tables beyond it stay in the folder of results
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class DataTable:
    """A table on the page. csv, parquet: downloads as data URIs, None where too large; beyond: rows that are not shown."""

    key: str
    name: str
    columns: list[str]
    rows: list[tuple[object, ...]]
    beyond: int
    count: int
    csv: str | None
    parquet: str | None


def data_tables(inputs: PageInputs) -> Iterator[DataTable]:
    """All tables, the scores with chance and majority as columns."""
    left = BUDGET
    filled = {name: table for name, table in inputs.tables.items() if len(table)}
    for number, (name, table) in enumerate(sorted(filled.items(), key=_place)):
        made = _data_table(f"table-{number}", name, with_baselines(table) if name == "scores" else table, left)
        left -= len(made.csv or "") + len(made.parquet or "")
        yield made


def _place(item: tuple[str, pd.DataFrame]) -> tuple[int, str]:
    """Tables that people ask for first come first."""
    order = ("recommendations", "scores", "findings", "audit", "analysis")
    return (order.index(item[0]) if item[0] in order else len(order), item[0])


def with_baselines(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with chance and majority as columns instead of rows."""
    keys = [
        name
        for name in ("family", "step", "train", "format", "recipe", "seed", "suite", "test", "test_format", "shots")
    ]
    baselines = scores[scores["metric"].isin(selection.METRICS)]
    if baselines.empty:
        return scores
    wide = baselines.pivot_table("value", keys, "metric", aggfunc="first").reset_index()
    return scores[~scores["metric"].isin(selection.METRICS)].merge(wide, on=keys, how="left")


def _data_table(key: str, name: str, table: pd.DataFrame, left: int) -> DataTable:
    """A table with its downloads, unless they have more characters than are left."""
    shown = ordered(table)
    head = shown.head(ROWS).dropna(axis="columns", how="all")
    rows = [tuple(_short(value) for value in row) for row in head.itertuples(index=False, name=None)]
    csv, parquet = _csv(shown), _parquet(shown)
    fits = len(csv) + len(parquet) <= left
    return DataTable(
        key,
        name,
        list(head.columns),
        rows,
        max(0, len(table) - ROWS),
        len(table),
        csv if fits else None,
        parquet if fits else None,
    )


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns FIRST in front and LATE at the end."""
    first = [name for name in FIRST if name in table]
    late = [name for name in LATE if name in table]
    middle = [name for name in table.columns if name not in {*first, *late}]
    return table[[*first, *middle, *late]]


def _short(value: object) -> object:
    """A cell without lists: their length."""
    return len(value) if isinstance(value, (list, np.ndarray)) else value


def _uri(kind: str, data: bytes) -> str:
    """A data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _csv(table: pd.DataFrame) -> str:
    """A table as gzipped CSV. Texts that a spreadsheet would run as a formula are led by an apostrophe."""
    return _uri("application/gzip", gzip.compress(harmless(table).to_csv(index=False).encode(), mtime=0))


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts no spreadsheet takes for a formula."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(_quoted) for name in texts}).rename(
        columns=lambda name: _quoted(str(name))
    )


def _quoted(value: object) -> object:
    """A text led by an apostrophe where a spreadsheet would run it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _parquet(table: pd.DataFrame) -> str:
    """A table as Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return _uri("application/vnd.apache.parquet", buffer.getvalue())
