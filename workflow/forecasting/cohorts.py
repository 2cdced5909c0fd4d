"""A cohort: bases to compare, with their config fields, indicators and scores after fine-tuning.

It is read from a CSV file with one row for each base. For a release the user gives the file; for a study's bases
`own_cohort.table` makes it from the gathered indicators and scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.errors import StudyError, shown
from workflow.settings import CohortTable
from workflow.storage import files

FEWEST = 10  # bases: with fewer, a 60/40 split has too few pairs for any accuracy to differ significantly from chance
NEAR = 0.01  # standard deviations of a column: rows closer than this in all columns are one model or one evaluation
RUN, BASE = "run", "base"  # columns of a study's table: unit of resampling, name of a base


@dataclass(frozen=True)
class Cohort:
    """Bases with their config fields, indicators (higher is better) and targets (scores after fine-tuning).

    rows: one for each base, columns key (text), fields (numbers, or text where not all values are numbers), indicators
    and targets (numbers); written: the same cells as text, which shows the precision of numbers; run: the pre-training run of
    each base, if bases of one run are dependent; None if all bases are independent.
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
        """Names of the bases."""
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
        """Number of the unit of each base, shape (bases,): units are resampled and never split.

        Twins are one unit. If the cohort has several pre-training runs, all bases of one run are one unit, since they share
        weights, data order and random seeds and are not independent.
        """
        if self.run is None:
            return self.twins
        runs = np.array(self.run)
        return _grouped((self.twins[:, None] == self.twins) | (runs[:, None] == runs))

    def values(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return the numbers in some columns, shape (bases, columns)."""
        return self.rows[list(columns)].to_numpy(dtype=float)

    def numeric(self, field: str) -> bool:
        """Return whether a field is numeric."""
        return pd.api.types.is_numeric_dtype(self.rows[field])

    def levels(self, field: str) -> list[Any]:
        """Return the distinct values of a field, sorted."""
        return sorted(self.rows[field].unique())


def _grouped(linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the connected component of each element, shape (n,); linked: shape (n, n), symmetric."""
    group = np.arange(len(linked))
    while True:
        least = np.where(linked, group[None], len(linked)).min(axis=1, initial=len(linked))
        if (least == group).all():
            return np.unique(group, return_inverse=True)[1]
        group = least


def read(block: CohortTable) -> Cohort:
    """Read the table of a cohort's block; bases of the study that lack a number are left out.

    Errors: StudyError naming file, row and column of a value that is missing, blank, not a number or repeated.
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
    names = (block["fields"], block["indicators"], block["targets"])
    return Cohort(pd.DataFrame(cells), written, block["key"], *names, run=runs)


def check(block: CohortTable) -> None:
    """Raise StudyError unless a given table can be read, has FEWEST bases and at least two values of each field."""
    cohort = read(block)
    if len(cohort.rows) < FEWEST:
        raise StudyError(f"{block['path']}: found {len(cohort.rows)} rows, expected at least {FEWEST}")
    for name in cohort.fields:
        if cohort.written[name].nunique() == 1:
            value = cohort.written[name].iloc[0]
            raise StudyError(f"{block['path']}: field {name!r} is {value!r} in all rows, expected at least two values")


def _written(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of a CSV file as text."""
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that `path` of the cohort names")
    header, rows = files.csv_rows(path)
    for name in columns:
        if name not in header:
            raise StudyError(f"{path}: column {name!r} is missing; found {', '.join(header)}")
    return pd.DataFrame([{name: row[name].strip() for name in columns} for row in rows], columns=columns)


def _check_cells(path: Path, written: pd.DataFrame, key: str) -> None:
    """Raise StudyError for a blank cell and for a repeated id."""
    for number, row in enumerate(written.to_dict("records"), start=1):
        for name, text in row.items():
            if not text:
                raise StudyError(f"{path}, row {number}: column {name!r} is blank, expected a value")
    repeated = written[key].duplicated()
    if repeated.any():
        number = int(repeated.to_numpy().argmax()) + 1
        raise StudyError(
            f"{path}, row {number}: {key} {written[key].iloc[number - 1]!r} occurs twice; expected one row each"
        )


def _field(written: pd.Series) -> pd.Series:
    """Return a field's values, as numbers if all are numbers."""
    numbers = pd.to_numeric(written, errors="coerce")
    return written if not np.isfinite(numbers).all() else numbers


def _number(path: Path, number: int, name: str, text: str) -> float:
    """Return a finite number from its text."""
    value = files.number(text)
    if math.isnan(value):
        raise StudyError(f"{path}, row {number}: column {name!r}: found {shown(text)}, expected a number")
    return value
