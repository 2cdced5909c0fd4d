"""Numbers printed elsewhere beside this study's own."""

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
    "=": lambda own, other, within: abs(own - other) <= within + 1e-9,
    ">=": lambda own, other, within: own >= other - within - 1e-9,
    "<=": lambda own, other, within: own <= other + within + 1e-9,
}
EMPTY = pd.DataFrame(columns=[*COLUMNS, "own", "difference", "follows"])


def read(path: Path) -> pd.DataFrame:
    """A file of printed numbers: text in COLUMNS, of which printed and within are numbers.

    Errors: StudyError naming file, row and column.
    """
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that printed of a cohort names")
    header, rows = files.csv_rows(path)
    if header != COLUMNS:
        raise StudyError(f"{path}: columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
    return pd.DataFrame([_row(path, number, row) for number, row in enumerate(rows, start=1)], columns=COLUMNS)


def _row(path: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    """A row with its numbers as such."""
    found: dict[str, Any] = dict(row)
    for name in ("printed", "within"):
        found[name] = files.number(row[name])
        if math.isnan(found[name]):
            raise StudyError(f"{path}, row {number}: column {name!r}: found {shown(row[name])}, expected a number")
    for name, allowed in (("relation", RELATIONS), ("statistic", STATISTICS)):
        if row[name] not in allowed:
            raise StudyError(
                f"{path}, row {number}: column {name!r}: found {shown(row[name])}, allowed: {', '.join(allowed)}"
            )
    return found


def compare(
    published: pd.DataFrame, forecasts: pd.DataFrame, rankings: pd.DataFrame, importance: pd.DataFrame
) -> pd.DataFrame:
    """The printed rows with `own`, this study's number, its `difference` and whether it `follows` to `within`.

    Errors: StudyError for a row that this study has no number for.
    """
    found = {"forecasts": forecasts, "rankings": rankings, "importance": importance}
    own = [_own(row, found) for row in published.to_dict("records")]
    table = published.assign(
        own=own, difference=[mine - other for mine, other in zip(own, published["printed"], strict=True)]
    )
    rows = zip(table["relation"], table["own"], table["printed"], table["within"], strict=True)
    return table.assign(follows=[RELATIONS[relation](mine, other, within) for relation, mine, other, within in rows])


def _own(row: dict[str, Any], found: dict[str, pd.DataFrame]) -> float:
    """This study's number for a printed row."""
    values = STATISTICS[row["statistic"]](row, found)
    if len(values) != 1 or pd.isna(values[0]):
        keys = ", ".join(f"{name} {row[name]}" for name in KEYS if row[name])
        raise StudyError(f"printed: {row['statistic']} of {keys}: {len(values)} numbers in this study, expected 1")
    return float(values[0])


def _matching(table: pd.DataFrame, row: dict[str, Any], keys: list[str]) -> pd.DataFrame:
    """Rows of a table with the keys of a printed row; a blank key is null in the table."""
    for name in keys:
        table = table[table[name] == row[name] if row[name] else table[name].isna()]
    return table


def _forecast(column: str) -> Callable[[dict[str, Any], dict[str, pd.DataFrame]], list[float]]:
    def look_up(row: dict[str, Any], found: dict[str, pd.DataFrame]) -> list[float]:
        return list(_matching(found["forecasts"], row, KEYS)[column])

    return look_up


def _relative(row: dict[str, Any], found: dict[str, pd.DataFrame]) -> list[float]:
    """Accuracy relative to that of the indicator named in `column`, in percent more."""
    own = _matching(found["forecasts"], row, KEYS)["accuracy"]
    other = _matching(found["forecasts"], row | {"forecaster": row["column"], "source": ""}, KEYS)["accuracy"]
    return [100 * (one / two - 1) for one, two in zip(own, other, strict=False)]


def _ranked(row: dict[str, Any], found: dict[str, pd.DataFrame]) -> list[float]:
    """Longest shortlist that is needed to hold the best."""
    rows = _matching(found["rankings"], row, ["forecaster", "source", "target", "split"])
    return list(rows[rows["statistic"] == "longest_shortlist"]["value"])


def _importance(row: dict[str, Any], found: dict[str, pd.DataFrame]) -> list[float]:
    """Place of `column` among the columns of a model, the most important first."""
    rows = _matching(found["importance"], row, ["forecaster", "source", "split"])
    return list(rows["value"].rank(ascending=False)[rows["column"] == row["column"]])


STATISTICS = {
    "accuracy": _forecast("accuracy"),
    "sd": _forecast("sd"),
    "relative_accuracy": _relative,
    "longest_shortlist": _ranked,
    "importance_rank": _importance,
}
