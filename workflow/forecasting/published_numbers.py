"""Compare published numbers with this study's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.errors import StudyError, shown
from workflow.storage import files

KEYS = ["forecaster", "source", "target", "split", "subset", "ties"]
COLUMNS = ["place", "statistic", *KEYS, "column", "relation", "printed", "within"]
RELATIONS: dict[str, Callable[[float, float, float], bool]] = {
    "=": lambda value, other, within: abs(value - other) <= within + 1e-9,
    ">=": lambda value, other, within: value >= other - within - 1e-9,
    "<=": lambda value, other, within: value <= other + within + 1e-9,
}
EMPTY = pd.DataFrame(columns=[*COLUMNS, "own", "difference", "follows"])


def read(path: Path) -> pd.DataFrame:
    """Read a file of published numbers: text in COLUMNS, of which printed and within are numbers.

    Errors: StudyError naming file, row and column.
    """
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that `printed` of the cohort names")
    header, rows = files.csv_rows(path)
    if header != COLUMNS:
        raise StudyError(f"{path}: columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
    return pd.DataFrame([_row(path, number, row) for number, row in enumerate(rows, start=1)], columns=COLUMNS)


def _row(path: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    """Return a row with its numbers parsed."""
    parsed: dict[str, Any] = dict(row)
    for name in ("printed", "within"):
        parsed[name] = files.number(row[name])
        if math.isnan(parsed[name]):
            raise StudyError(f"{path}, row {number}: column {name!r}: found {shown(row[name])}, expected a number")
    for name, allowed in (("relation", RELATIONS), ("statistic", STATISTICS)):
        if row[name] not in allowed:
            raise StudyError(
                f"{path}, row {number}: column {name!r}: found {shown(row[name])}, allowed: {', '.join(allowed)}"
            )
    return parsed


def compare(
    published: pd.DataFrame, forecasts: pd.DataFrame, rankings: pd.DataFrame, importance: pd.DataFrame
) -> pd.DataFrame:
    """Return the published rows with this study's number `own`, the `difference`, and whether it `follows` to `within`.

    Errors: StudyError for a row without a number in this study.
    """
    measured = {"forecasts": forecasts, "rankings": rankings, "importance": importance}
    values = [_own(row, measured) for row in published.to_dict("records")]
    table = published.assign(
        own=values, difference=[value - other for value, other in zip(values, published["printed"], strict=True)]
    )
    rows = zip(table["relation"], table["own"], table["printed"], table["within"], strict=True)
    return table.assign(follows=[RELATIONS[relation](value, other, within) for relation, value, other, within in rows])


def _own(row: dict[str, Any], measured: dict[str, pd.DataFrame]) -> float:
    """Return this study's number for a published row."""
    values = STATISTICS[row["statistic"]](row, measured)
    if len(values) != 1 or pd.isna(values[0]):
        keys = ", ".join(f"{name} {row[name]}" for name in KEYS if row[name])
        raise StudyError(f"printed: {row['statistic']} of {keys}: {len(values)} numbers in this study, expected 1")
    return float(values[0])


def _matching(table: pd.DataFrame, row: dict[str, Any], keys: list[str]) -> pd.DataFrame:
    """Return the rows of a table with the keys of a published row; a blank key is null in the table."""
    for name in keys:
        table = table[table[name] == row[name] if row[name] else table[name].isna()]
    return table


def _forecast(column: str) -> Callable[[dict[str, Any], dict[str, pd.DataFrame]], list[float]]:
    def look_up(row: dict[str, Any], measured: dict[str, pd.DataFrame]) -> list[float]:
        return list(_matching(measured["forecasts"], row, KEYS)[column])

    return look_up


def _relative(row: dict[str, Any], measured: dict[str, pd.DataFrame]) -> list[float]:
    """Return the relative improvement in accuracy over the indicator named in `column`, in percent."""
    accuracies = _matching(measured["forecasts"], row, KEYS)["accuracy"]
    other = _matching(measured["forecasts"], row | {"forecaster": row["column"], "source": ""}, KEYS)["accuracy"]
    return [100 * (one / two - 1) for one, two in zip(accuracies, other, strict=False)]


def _ranked(row: dict[str, Any], measured: dict[str, pd.DataFrame]) -> list[float]:
    """Return the longest shortlist needed to contain the best base."""
    rows = _matching(measured["rankings"], row, ["forecaster", "source", "target", "split"])
    return list(rows[rows["statistic"] == "longest_shortlist"]["value"])


def _importance(row: dict[str, Any], measured: dict[str, pd.DataFrame]) -> list[float]:
    """Return the rank of `column` by importance among the columns of a model."""
    rows = _matching(measured["importance"], row, ["forecaster", "source", "split"])
    return list(rows["value"].rank(ascending=False)[rows["column"] == row["column"]])


STATISTICS = {
    "accuracy": _forecast("accuracy"),
    "sd": _forecast("sd"),
    "relative_accuracy": _relative,
    "longest_shortlist": _ranked,
    "importance_rank": _importance,
}
