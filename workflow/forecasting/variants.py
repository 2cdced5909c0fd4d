"""The table that forecasting starts from: one row for each base with its config, indicators and targets."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.errors import StudyError, shown

FEWEST = 10  # bases: with fewer, a 60/40 split leaves too few pairs to tell any accuracy from chance
NEAR = 0.01  # standard deviations of a column: rows that are nearer in all columns are one model or one evaluation


@dataclass(frozen=True)
class Variants:
    """Bases with their config fields, indicators (higher is better) and targets (scores after tuning).

    rows: one for each base, columns key (text), fields (numbers, or text where not all values are numbers), indicators
    and targets (numbers); written: the same cells as they are in the file, which tells the precision of a number.
    """

    rows: pd.DataFrame
    written: pd.DataFrame
    key: str
    fields: list[str]
    indicators: list[str]
    targets: list[str]

    @property
    def ids(self) -> list[str]:
        """What the bases are called."""
        return list(self.rows[self.key])

    @cached_property
    def twins(self) -> NDArray[np.int64]:
        """Number of the model behind each base, shape (bases,); nearly equal indicators and targets mean one model."""
        values = self.values([*self.indicators, *self.targets])
        spread = values.std(axis=0)
        values = values / np.where(spread > 0, spread, 1)
        near = np.abs(values[:, None] - values[None]).max(axis=-1) < NEAR
        group = near.argmax(axis=1)
        while (group != group[group]).any():
            group = group[group]
        return np.unique(group, return_inverse=True)[1]

    def values(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Numbers in some columns, shape (bases, columns)."""
        return self.rows[list(columns)].to_numpy(dtype=float)

    def numeric(self, field: str) -> bool:
        """Whether the values of a field have an order."""
        return pd.api.types.is_numeric_dtype(self.rows[field])

    def levels(self, field: str) -> list[Any]:
        """The different values of a field, in order."""
        return sorted(self.rows[field].unique())


def read(block: Mapping[str, Any]) -> Variants:
    """The table that a study's `variants` block names.

    Errors: StudyError naming file, row and column of what is missing, blank, no number, there twice or always the same.
    """
    path = Path(block["path"])
    columns = [block["key"], *block["fields"], *block["indicators"], *block["targets"]]
    written = _written(path, columns)
    _check_ids(path, written, block["key"])
    columns = {block["key"]: written[block["key"]]} | {name: _field(path, written[name]) for name in block["fields"]}
    for name in [*block["indicators"], *block["targets"]]:
        columns[name] = [_number(path, number, name, text) for number, text in enumerate(written[name], start=1)]
    return Variants(
        pd.DataFrame(columns), written, *(block[part] for part in ("key", "fields", "indicators", "targets"))
    )


def _written(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV file as text, none of them blank."""
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that variants/path names")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
    for name in columns:
        if name not in (reader.fieldnames or []):
            raise StudyError(
                f"{path}: column {name!r} is missing; found {', '.join(reader.fieldnames or []) or 'none'}"
            )
    for number, row in enumerate(rows, start=1):
        for name in columns:
            if not (row[name] or "").strip():
                raise StudyError(f"{path}, row {number}: column {name!r} is blank, expected a value")
    if len(rows) < FEWEST:
        raise StudyError(f"{path}: found {len(rows)} rows, expected at least {FEWEST}")
    return pd.DataFrame([{name: row[name].strip() for name in columns} for row in rows])


def _check_ids(path: Path, written: pd.DataFrame, key: str) -> None:
    """StudyError unless each base has an id of its own."""
    again = written[key].duplicated()
    if again.any():
        number = int(again.to_numpy().argmax()) + 1
        raise StudyError(
            f"{path}, row {number}: {key} {written[key].iloc[number - 1]!r} is there twice; expected one row each"
        )


def _field(path: Path, written: pd.Series) -> pd.Series:
    """A field's values: numbers where all are."""
    if written.nunique() == 1:
        raise StudyError(
            f"{path}: field {written.name!r} is {written.iloc[0]!r} in all rows, expected at least two values"
        )
    numbers = pd.to_numeric(written, errors="coerce")
    return written if not np.isfinite(numbers).all() else numbers


def _number(path: Path, number: int, name: str, text: str) -> float:
    """A finite number from its text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise StudyError(f"{path}, row {number}: column {name!r}: found {shown(text)}, expected a number")
    return value
