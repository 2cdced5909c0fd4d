"""Families in tables: one entry of the config with a CSV file becomes one family for each row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.errors import StudyError
from workflow.storage.files import csv_rows

KEY = "id"  # the column that names a row
NO_VALUE = "none"  # of a field that a row leaves out


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A valid config with every family that names a table replaced by a family for each of its rows, `<name>-<id>`.

    Errors: StudyError naming file and row for a table that is missing, without rows, or whose rows are not what they
    should be; for two families of one name.
    """
    families: dict[str, Any] = {}
    for name, family in config.get("families", {}).items():
        found = _rows(name, family) if "table" in family else [(name, family)]
        for own, block in found:
            if own in families:
                raise StudyError(f"config.yaml: families/{name}: {own!r} appears twice; expected each name once")
            families[own] = block
    return {**config, "families": families} if families else dict(config)


def _rows(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The families of a table."""
    path = Path(family["table"])
    place = f"config.yaml: families/{name}/table"
    if path.is_absolute() or ".." in path.parts:
        raise StudyError(f"{place}: {str(path)!r} points outside the study's folder; expected a CSV file inside it")
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that families/{name}/table names")
    header, rows = csv_rows(path)
    if not rows or KEY not in header:
        raise StudyError(f"{path}: expected rows with a column {KEY!r} and columns named like keys of pretraining")
    shared = {key: value for key, value in family.items() if key not in ("table", "mixes", "pretraining")}
    for number, row in enumerate(rows, start=1):
        given = _given(f"{path}, row {number}", row)
        pretraining = {**family.get("pretraining", {}), **_settings(f"{path}, row {number}", given, family)}
        fields = {key: _field(given.get(key)) for key in row if key != KEY}
        yield f"{name}-{row[KEY].strip()}", {**shared, "pretraining": pretraining, "fields": fields}


def _given(place: str, row: Mapping[str, str]) -> dict[str, Any]:
    """What a row states, its blank cells left out: JSON where a cell is, else its text."""
    if not row[KEY].strip():
        raise StudyError(f"{place}: column {KEY!r} is blank, expected a name")
    return {key: _value(text.strip()) for key, text in row.items() if key != KEY and text.strip()}


def _value(text: str) -> Any:
    """A cell's value."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _settings(place: str, given: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """A row's keys of pretraining; a mix is given by its name among the family's `mixes`."""
    settings = dict(given)
    if "mix" in given:
        mixes = family.get("mixes", {})
        if str(given["mix"]) not in mixes:
            raise StudyError(
                f"{place}: mix {given['mix']!r} is not known; allowed: {', '.join(mixes) or 'none (mixes is missing)'}"
            )
        settings["mix"] = mixes[str(given["mix"])]
    return settings


def _field(value: Any) -> str | int | float:
    """What a cell says of its family, as a number or word."""
    if value is None:
        return NO_VALUE
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain or isinstance(value, str) else json.dumps(value)


STATED = ("objective", "learning_rate", "tag", "length", "mix", "seed", "batch", "steps")


def fields(families: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """How families were trained: column family and one for each field that not all have in common; NO_VALUE where one has none.

    A family's `fields`, and of one that is trained here the settings of STATED that its fields do not speak of.
    """
    rows = []
    for name, family in families.items():
        block = family.get("pretraining", {})
        own = {key: _field(block[key]) for key in STATED if key in block}
        rows.append({"family": name, **own, **family.get("fields", {})})
    table = pd.DataFrame(rows, columns=list(dict.fromkeys(key for row in rows for key in row)) or ["family"])
    table = table.astype(object).where(table.notna(), NO_VALUE).infer_objects()
    varied = [column for column in table if column == "family" or table[column].nunique() > 1]
    return table[varied]
