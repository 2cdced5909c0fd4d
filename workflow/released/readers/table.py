"""A table of scores, one row for each score, as CSV or Parquet, whose columns the study declares (`columns` of the import).

`columns` says which column holds what: `value` and `test`, and as far as there are columns for them `metric`, `error`, `n`,
`shots`, `model`, `revision`, `family`, `step`, `seed`, `tokens`; any other name is a field of the family. `=text` stands for the
same text in all rows. So `columns: {model: params, data: data, step: step, test: task, metric: "=acc", value: primary_metric}`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workflow.errors import StudyError, first_line, shown
from workflow.released.runs import Run, Score
from workflow.settings import Import
from workflow.storage.files import csv_rows, stated_number

SOURCE = "tables of scores (CSV or Parquet)"
PATTERNS = ("**/*.csv", "**/*.parquet")
LABELS: dict[str, tuple[str, str]] = {}

OF_SCORE = ("test", "metric", "value", "error", "n", "shots")
OF_MODEL = ("model", "revision", "family", "step", "seed", "tokens")
WHOLE = ("n", "shots", "step", "seed")
REQUIRED = ("test", "value")


def runs(path: Path, block: Import) -> Iterator[Run]:
    """Yield a run for each model in a table.

    Errors: StudyError for a missing column, and, naming the row, for a cell with an invalid value.
    """
    columns = block["columns"]
    for held in REQUIRED:
        if held not in columns:
            raise StudyError(
                f"{path}: `columns` of the import has none for {held!r}; expected at least {', '.join(REQUIRED)}"
            )
    header, rows = _read(path)
    for held, name in columns.items():
        if not name.startswith("=") and name not in header:
            raise StudyError(f"{path}: column {name!r} for {held} is missing; found {', '.join(header) or 'none'}")
    if not rows:
        raise StudyError(f"{path}: found no rows, expected at least one")
    models: dict[tuple[Any, ...], list[Score]] = {}
    for number, row in enumerate(rows, start=1):
        cells = {held: name[1:] if name.startswith("=") else row[name] for held, name in columns.items()}
        location = f"{path}, row {number}"
        facts = {held: _fact(location, held, columns[held], cells[held]) for held in columns if held not in OF_SCORE}
        models.setdefault(tuple(facts.items()), []).append(_score(location, columns, cells))
    for model, scores in models.items():
        yield _run(path, dict(model), scores)


def _run(path: Path, facts: Mapping[str, str], scores: list[Score]) -> Run:
    """Return the run of one model in a table."""
    name = facts.get("model") or facts.get("family") or path.stem
    fields = {held: value for held, value in facts.items() if held not in OF_MODEL}
    known = {held: value for held, value in facts.items() if held not in ("model", "revision")}
    return Run(str(path), name, facts.get("revision"), tuple(scores), known, fields=fields)


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of the columns, and the rows."""
    if path.suffix != ".parquet":
        return csv_rows(path)
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise StudyError(f"{path}: cannot be read as Parquet, perhaps cut short: {first_line(error)}") from error
    return table.column_names, table.to_pylist()


def _fact(location: str, held: str, name: str, cell: Any) -> str:
    """Return a property of the model as text; whole numbers without a decimal point."""
    if cell is None or not str(cell).strip():
        raise StudyError(f"{location}: column {name!r} is blank, expected the {held}")
    if held in WHOLE:
        return str(_whole(location, name, cell))
    return str(cell).strip()


def _score(location: str, columns: Mapping[str, str], cells: Mapping[str, Any]) -> Score:
    """Return the score of a row."""
    shots, count = (
        None if _blank(cells.get(held)) else _whole(location, columns[held], cells[held]) for held in ("shots", "n")
    )
    error = None if _blank(cells.get("error")) else _number(location, columns["error"], cells["error"])
    if _blank(cells["test"]):
        raise StudyError(f"{location}: column {columns['test']!r} is blank, expected the name of a test")
    metric = str(cells.get("metric", "score")).strip()
    return Score(
        str(cells["test"]).strip(), metric, _number(location, columns["value"], cells["value"]), shots, error, count
    )


def _blank(cell: Any) -> bool:
    """Return whether a cell is empty."""
    return cell is None or (isinstance(cell, str) and cell.strip() in ("", "N/A"))


def _number(location: str, name: str, cell: Any) -> float:
    """Return a cell's number."""
    try:
        return stated_number(cell)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{location}: column {name!r}: found {shown(cell)}, expected a number") from error


def _whole(location: str, name: str, cell: Any) -> int:
    """Return a cell's whole number."""
    number = _number(location, name, cell)
    if not math.isfinite(number) or number != int(number):
        raise StudyError(f"{location}: column {name!r}: found {shown(cell)}, expected a whole number")
    return int(number)
