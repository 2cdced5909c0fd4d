"""Entries of the config that stand for several families: CSV tables, and patterns with other names than `{step}`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from workflow.errors import StudyError
from workflow.models import checkpoints, revisions
from workflow.settings import Family
from workflow.storage.files import csv_rows, number

KEY = "id"  # column with the name of a row
OF_A_BASE = ("step", "tokens", "repo", "revision", "folder")  # columns of a table of bases that are about one base
PLACES = {"hub": "repo", "folder": "path"}  # key of a family that may hold names in braces
NO_VALUE = "none"  # value of a field that a row lacks


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A valid config in which each entry that stands for several families is replaced by these, and hub families list their
    steps.

    Errors: StudyError naming file and row for a table that is missing, without rows, or whose rows are not what they
    should be; for two families of one name; for a pattern that nothing matches; for a hub that cannot be reached.
    """
    families: dict[str, Any] = {}
    members: dict[str, list[str]] = {}
    for name, family in config.get("families", {}).items():
        for member, block in _found(name, family):
            if member in families:
                raise StudyError(f"config.yaml: families/{name}: {member!r} appears twice; expected each name once")
            families[member] = block
            members.setdefault(name, []).append(member)
    families = {name: _merged(name, block, families) for name, block in families.items()}
    return _naming({**config, "families": families}, members) if families else dict(config)


def _merged(name: str, family: dict[str, Any], families: Mapping[str, Any]) -> dict[str, Any]:
    """A merged family with its steps listed, and with tokens and fields of the family whose checkpoints it averages; others as
    they are.

    Errors: StudyError for a family that cannot be averaged, and for a step without enough checkpoints before it.
    """
    if family["source"] != "merged":
        return family
    key_path, source = f"config.yaml: families/{name}", family["family"]
    legal = [other for other, block in families.items() if block["source"] != "merged"]
    if source not in legal:
        raise StudyError(f"{key_path}/family: {source!r} is not allowed; allowed: {', '.join(legal) or 'no family'}")
    available = checkpoints.saved(source, families[source])
    possible = available[family["last"] - 1 :]
    if not possible:
        raise StudyError(
            f"{key_path}/last: {family['last']} is not allowed; allowed: {len(available)} or less, as many as {source!r} has"
        )
    steps = revisions.chosen(name, family.get("steps", [checkpoints.steps(source, families[source])[-1]]), possible)
    counted = {key: families[source][key] for key in ("tokens", "fields") if key in families[source]}
    per_step = tokens_per_step(families[source])
    return {**counted, **({"tokens_per_step": per_step} if per_step else {}), **family, "steps": steps}


def tokens_per_step(family: Mapping[str, Any]) -> float | None:
    """The tokens of a training step: from the config, else a batch of the study's own pre-training; None if unknown."""
    block = family.get("pretraining")
    return family.get("tokens_per_step") or (block["batch"] * block["sequence"] if block else None)


def _naming(config: Mapping[str, Any], members: Mapping[str, list[str]]) -> dict[str, Any]:
    """A config in which lists of families have all families of an entry instead of its name."""

    def named(block: Mapping[str, Any]) -> dict[str, Any]:
        listed = [member for name in block["families"] for member in members.get(name, [name])]
        return {**block, "families": list(dict.fromkeys(listed))}

    def each(blocks: Iterable[Any]) -> list[Any]:
        return [named(block) if "families" in block else block for block in blocks]

    changed = dict(config)
    if "models" in config:
        changed["models"] = each(config["models"])
    if "cohorts" in config:
        changed["cohorts"] = dict(zip(config["cohorts"], each(config["cohorts"].values()), strict=True))
    if "estimate" in config:
        sizes = config["estimate"]["parameters"].items()
        parameters = {member: size for name, size in sizes for member in members.get(name, [name])}
        changed["estimate"] = {**config["estimate"], "parameters": parameters}
    return changed


def _found(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The families of an entry, each with its name."""
    if "table" in family:
        yield from _rows(name, family) if family["source"] == "trained" else _manifest(name, family)
    elif family["source"] in PLACES and "repos" not in family:
        for member, block in _placed(name, family):
            yield from _matched(member, block)
    else:
        yield name, dict(family)


# --- patterns ------------------------------------------------------------------------------------------------------------


def _placed(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Families of a repository or folder whose name has names in braces: one for each of the `values` in the config."""
    key, values = PLACES[family["source"]], family.get("values", {})
    wanted = list(dict.fromkeys(revisions.names_in(family[key])))
    if key == "path":  # the name of a folder may have braces
        wanted = [one for one in wanted if one in values]
    for one in wanted:
        if one not in values:
            raise StudyError(
                f"config.yaml: families/{name}/values: {one!r} is missing; expected its values, since {key} has it"
            )
    in_pattern = revisions.names_in(family["pattern"])
    for one in values:
        if one not in (*wanted, *in_pattern):
            raise StudyError(f"config.yaml: families/{name}/values: {one!r} is in neither {key} nor pattern")
    rest = {one: listed for one, listed in values.items() if one in in_pattern and one not in wanted}
    for given in itertools.product(*(values[one] for one in wanted)):
        values_of = dict(zip(wanted, map(str, given), strict=True))
        block = _filled_in(family, values_of, (key, "pattern"))
        yield _named(name, values_of), block | ({"values": rest} if rest else {})


def _matched(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Families of a pattern with other names than `{step}`: one for each set of values that exists."""
    wanted = revisions.names_in(family["pattern"])
    steps = family["steps"]
    listed = isinstance(steps, list)
    if not wanted and (listed or family["source"] == "folder"):
        yield name, dict(family)
    else:
        expression = revisions.expression(name, family["pattern"])
        refs = revisions.looked_up(family["repo"]) if family["source"] == "hub" else {}
        there = revisions.matches(expression, refs) if refs else _folder_matches(name, family, expression)
        for values in _values(name, family, wanted, there.values()):
            block = _filled_in(family, values, ("pattern",))
            if family["source"] == "hub" and not listed:
                block["steps"] = revisions.chosen(name, steps, revisions.steps_on_hub(name, cast(Family, block), refs))
            yield _named(name, values), block


def _folder_matches(name: str, family: Mapping[str, Any], expression: Any) -> dict[str, Any]:
    """The sub-folders of a local family that match its pattern."""
    root = Path(family["path"])
    if not root.is_dir():
        raise StudyError(
            f"config.yaml: families/{name}/path: {root} is not a folder; expected sub-folders {family['pattern']}"
        )
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    return {one: match for one in names if (match := expression.fullmatch(one))}


def _values(name: str, family: Mapping[str, Any], wanted: list[str], matches: Iterable[Any]) -> list[dict[str, str]]:
    """The existing sets of values of a pattern's names, filtered by `values`, in order.

    Errors: StudyError if nothing matches or a listed value does not exist.
    """
    key_path = f"config.yaml: families/{name}"
    there = [{one: match[one] for one in wanted} for match in matches]
    found = [dict(pairs) for pairs in sorted({tuple(values.items()) for values in there}, key=_order)]
    if wanted and not found:
        raise StudyError(
            f"{key_path}/pattern: nothing in {family[PLACES[family['source']]]} matches {family['pattern']}"
        )
    taken = {one: list(map(str, listed)) for one, listed in family.get("values", {}).items()}
    for one, listed in taken.items():
        known = list(dict.fromkeys(values[one] for values in found))
        for value in listed:
            if value not in known:
                raise StudyError(f"{key_path}/values/{one}: {value!r} does not exist; allowed: {', '.join(known)}")
    return [values for values in found if all(values[one] in listed for one, listed in taken.items())] or [{}]


def _order(values: tuple[tuple[str, str], ...]) -> list[tuple[float, str]]:
    """Sort key: numbers by value."""
    return [(float(text) if text.isdigit() else float("inf"), text) for _, text in values]


def _filled_in(family: Mapping[str, Any], values: Mapping[str, str], keys: Iterable[str]) -> dict[str, Any]:
    """A family with values in place of names in braces; each value also becomes a field of the family."""
    block = {key: value for key, value in family.items() if key != "values"}
    block |= {key: revisions.filled(block[key], values) for key in keys}
    filled = {one: int(value) if value.isdigit() else value for one, value in values.items()}
    return block | ({"fields": {**filled, **family.get("fields", {})}} if filled else {})


def _named(name: str, values: Mapping[str, str]) -> str:
    """Name of a family of a pattern, such as `olmo-stage1`. A value that begins with a letter has no name before it."""
    parts = (value if value[:1].isalpha() else f"{one}{value}" for one, value in values.items())
    return "-".join([name, *parts]).lower()


# --- tables --------------------------------------------------------------------------------------------------------------


def _manifest(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The families of a table of bases: one for each `id`, or one in all."""
    path, header, rows = _table(name, family)
    source_column = "repo" if family["source"] == "hub" else "folder"
    for column in ("step", *([] if source_column == "repo" and "repo" in family else [source_column])):
        if column not in header:
            raise StudyError(f"{path}: column {column!r} is missing; found {', '.join(header)}")
    groups: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for count, row in enumerate(rows, start=1):
        groups.setdefault(row.get(KEY, "").strip(), []).append((f"{path}, row {count}", row))
    shared = {key: value for key, value in family.items() if key not in ("table", "repo")}
    for member, listed in groups.items():
        if KEY in header and not member:
            raise StudyError(f"{listed[0][0]}: column {KEY!r} is blank, expected a name")
        entries = [_base(where, row, source_column, family) for where, row in listed]
        block = shared | {"repos" if source_column == "repo" else "folders": entries, "fields": _common(listed, family)}
        tokens = {int(row["step"]): _tokens(where, row) for where, row in listed if row.get("tokens", "").strip()}
        yield f"{name}-{member}" if member else name, block | ({"tokens": tokens} if tokens else {})


def _base(where: str, row: Mapping[str, str], column: str, family: Mapping[str, Any]) -> dict[str, Any]:
    """One base of a table: its step, and its repository and revision, or its folder."""
    cells = {key: row.get(key, "").strip() for key in OF_A_BASE}
    if not cells["step"].isdecimal():
        raise StudyError(f"{where}: step is {row['step']!r}, expected a whole number")
    source = cells[column] or (family.get("repo", "") if column == "repo" else "")
    if not source:
        raise StudyError(f"{where}: column {column!r} is blank")
    if column == "folder" and (Path(source).is_absolute() or ".." in Path(source).parts):
        raise StudyError(f"{where}: folder {source!r} points outside {family['path']}; expected a folder inside it")
    stated = {"revision": cells["revision"]} if column == "repo" and cells["revision"] else {}
    return {"step": int(cells["step"]), column: source, **stated}


def _tokens(where: str, row: Mapping[str, str]) -> float:
    """The tokens of a row."""
    tokens = number(row["tokens"])
    if not tokens > 0:
        raise StudyError(f"{where}: tokens is {row['tokens']!r}, expected a number above 0")
    return tokens


def _common(rows: list[tuple[str, dict[str, str]]], family: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a family of a table: its other columns, which must be equal in all rows of the family."""
    fields: dict[str, Any] = {}
    for where, row in rows:
        for column, text in row.items():
            if column in (KEY, *OF_A_BASE):
                continue
            value = _field(_value(text.strip()) if text.strip() else None)
            if fields.setdefault(column, value) != value:
                raise StudyError(f"{where}: {column} is {value!r}, in an earlier row of this family {fields[column]!r}")
    return {**fields, **family.get("fields", {})}


def _rows(name: str, family: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The families of a table of pre-training runs: one for each row."""
    path, header, rows = _table(name, family)
    if KEY not in header:
        raise StudyError(f"{path}: expected rows with a column {KEY!r} and columns named like keys of pretraining")
    shared = {key: value for key, value in family.items() if key not in ("table", "mixes", "pretraining")}
    for count, row in enumerate(rows, start=1):
        given = _given(f"{path}, row {count}", row)
        pretraining = {**family.get("pretraining", {}), **_settings(f"{path}, row {count}", given, family)}
        fields = {key: _field(given.get(key)) for key in row if key != KEY}
        yield f"{name}-{row[KEY].strip()}", {**shared, "pretraining": pretraining, "fields": fields}


def _table(name: str, family: Mapping[str, Any]) -> tuple[Path, list[str], list[dict[str, str]]]:
    """Path, header and rows of a family's table."""
    path = Path(family["table"])
    key_path = f"config.yaml: families/{name}/table"
    if path.is_absolute() or ".." in path.parts:
        raise StudyError(f"{key_path}: {str(path)!r} points outside the study's folder; expected a CSV file inside it")
    if not path.is_file():
        raise StudyError(f"{path}: missing; expected the CSV file that families/{name}/table names")
    header, rows = csv_rows(path)
    if not rows:
        key = KEY if family["source"] == "trained" else "step"
        raise StudyError(f"{path}: expected rows with a column {key!r}")
    return path, header, rows


def _given(row_name: str, row: Mapping[str, str]) -> dict[str, Any]:
    """The filled cells of a row: as JSON where a cell is JSON, else as text."""
    if not row[KEY].strip():
        raise StudyError(f"{row_name}: column {KEY!r} is blank, expected a name")
    return {key: _value(text.strip()) for key, text in row.items() if key != KEY and text.strip()}


def _value(text: str) -> Any:
    """A cell's value."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _settings(row_name: str, given: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The pretraining keys of a row; a mix is named, and defined in the family's `mixes`."""
    settings = dict(given)
    if "mix" in given:
        mixes = family.get("mixes", {})
        if str(given["mix"]) not in mixes:
            raise StudyError(
                f"{row_name}: mix {given['mix']!r} is not known; allowed: {', '.join(mixes) or 'none (mixes is missing)'}"
            )
        settings["mix"] = mixes[str(given["mix"])]
    return settings


def _field(value: Any) -> str | int | float:
    """The value of a field as a number or text."""
    if value is None:
        return NO_VALUE
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain or isinstance(value, str) else json.dumps(value)


STATED = ("objective", "learning_rate", "tag", "length", "mix", "seed", "batch", "steps")


def fields(families: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Settings in which families differ: column family and one for each field; NO_VALUE where a family lacks it.

    A family's `fields`, and, for a family trained here, the settings of STATED that are not among its fields.
    """
    rows = []
    for name, family in families.items():
        block = family.get("pretraining", {})
        stated = {key: _field(block[key]) for key in STATED if key in block}
        rows.append({"family": name, **stated, **family.get("fields", {})})
    table = pd.DataFrame(rows, columns=list(dict.fromkeys(key for row in rows for key in row)) or ["family"])
    table = table.astype(object).where(table.notna(), NO_VALUE).infer_objects()
    varied = [column for column in table if column == "family" or table[column].nunique() > 1]
    return table[varied]
