"""A cohort: bases that are compared with each other, with their configs, indicators and scores after tuning.

It is read from a CSV file with one row for each base. Of a release the file is given; of a study's own bases `assemble`
makes it from the gathered indicators and scores.
"""

from __future__ import annotations

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
from workflow.storage import files

FEWEST = 10  # bases: with fewer, a 60/40 split leaves too few pairs to tell any accuracy from chance
NEAR = 0.01  # standard deviations of a column: rows that are nearer in all columns are one model or one evaluation
RUN, BASE = "run", "base"  # columns of a study's own table: what is resampled, what a base is called


@dataclass(frozen=True)
class Cohort:
    """Bases with their config fields, indicators (higher is better) and targets (scores after tuning).

    rows: one for each base, columns key (text), fields (numbers, or text where not all values are numbers), indicators
    and targets (numbers); written: the same cells as they are in the file, which tells the precision of a number; run: of
    each base the pre-training run that it comes from, where bases of one run are not independent; None where each is.
    """

    rows: pd.DataFrame
    written: pd.DataFrame
    key: str
    fields: list[str]
    indicators: list[str]
    targets: list[str]
    run: tuple[str, ...] | None = None

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
        return _grouped(np.abs(values[:, None] - values[None]).max(axis=-1) < NEAR)

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Number of the unit that each base belongs to, shape (bases,): what is resampled and never split.

        Twins are one unit, and so are all bases of one pre-training run where the cohort has several runs: they share
        weights, data order and luck, so that one of them tells much about the next.
        """
        if self.run is None:
            return self.twins
        runs = np.array(self.run)
        return _grouped((self.twins[:, None] == self.twins) | (runs[:, None] == runs))

    def values(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Numbers in some columns, shape (bases, columns)."""
        return self.rows[list(columns)].to_numpy(dtype=float)

    def numeric(self, field: str) -> bool:
        """Whether the values of a field have an order."""
        return pd.api.types.is_numeric_dtype(self.rows[field])

    def levels(self, field: str) -> list[Any]:
        """The different values of a field, in order."""
        return sorted(self.rows[field].unique())


def _grouped(linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the group of each element, shape (n,); linked: shape (n, n), symmetric; a link of links is one."""
    group = np.arange(len(linked))
    while True:
        least = np.where(linked, group[None], len(linked)).min(axis=1, initial=len(linked))
        if (least == group).all():
            return np.unique(group, return_inverse=True)[1]
        group = least


def read(block: Mapping[str, Any]) -> Cohort:
    """The table of a cohort's block (of a study's own bases: `own_table`), which leaves out bases that lack a number.

    Errors: StudyError naming file, row and column of what is missing, blank, no number or there twice.
    """
    path = Path(block["path"])
    run = [block["run"]] if "run" in block else []
    columns = [block["key"], *run, *block["fields"], *block["indicators"], *block["targets"]]
    written = _written(path, columns)
    if "assembled" in block:
        written = written[(written != "").all(axis=1)].reset_index(drop=True)
    _check_cells(path, written, block["key"])
    cells = {block["key"]: written[block["key"]]} | {name: _field(written[name]) for name in block["fields"]}
    for name in [*block["indicators"], *block["targets"]]:
        cells[name] = [_number(path, number, name, text) for number, text in enumerate(written[name], start=1)]
    runs = tuple(written[block["run"]]) if run else None
    parts = (block[part] for part in ("key", "fields", "indicators", "targets"))
    return Cohort(pd.DataFrame(cells), written, *parts, run=runs)


def check(block: Mapping[str, Any]) -> None:
    """StudyError unless a given table can be read and has as many bases and as many values of each field as it takes."""
    found = read(block)
    if len(found.rows) < FEWEST:
        raise StudyError(f"{block['path']}: found {len(found.rows)} rows, expected at least {FEWEST}")
    for name in found.fields:
        if found.written[name].nunique() == 1:
            value = found.written[name].iloc[0]
            raise StudyError(f"{block['path']}: field {name!r} is {value!r} in all rows, expected at least two values")


def _written(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV file as text."""
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that path of a cohort names")
    header, rows = files.csv_rows(path)
    for name in columns:
        if name not in header:
            raise StudyError(f"{path}: column {name!r} is missing; found {', '.join(header)}")
    return pd.DataFrame([{name: row[name].strip() for name in columns} for row in rows], columns=columns)


def _check_cells(path: Path, written: pd.DataFrame, key: str) -> None:
    """StudyError for a blank cell, and unless each base has an id of its own."""
    for number, row in enumerate(written.to_dict("records"), start=1):
        for name, text in row.items():
            if not text:
                raise StudyError(f"{path}, row {number}: column {name!r} is blank, expected a value")
    again = written[key].duplicated()
    if again.any():
        number = int(again.to_numpy().argmax()) + 1
        raise StudyError(
            f"{path}, row {number}: {key} {written[key].iloc[number - 1]!r} is there twice; expected one row each"
        )


def _field(written: pd.Series) -> pd.Series:
    """A field's values: numbers where all are."""
    numbers = pd.to_numeric(written, errors="coerce")
    return written if not np.isfinite(numbers).all() else numbers


def _number(path: Path, number: int, name: str, text: str) -> float:
    """A finite number from its text."""
    value = files.number(text)
    if math.isnan(value):
        raise StudyError(f"{path}, row {number}: column {name!r}: found {shown(text)}, expected a number")
    return value
