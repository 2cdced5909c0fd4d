"""Rename the families of imported results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workflow.errors import StudyError


def renamed(
    key_path: str, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str], families: Sequence[str]
) -> list[dict[str, Any]]:
    """Return imported rows with renamed families. key_path: of `rename` in the config; families: those of the study.

    Errors: StudyError for a name that no row has, for two families with one new name, and for the name of a family of the
    study, whose scores would be mixed with the imported ones.
    """
    imported = list(rows)
    present = sorted({row["family"] for row in imported})
    for old in set(names) - set(present):
        raise StudyError(f"{key_path}: found no family {old!r}; allowed: {', '.join(present)}")
    taken: dict[str, list[str]] = {}
    for old in present:
        taken.setdefault(names.get(old, old), []).append(old)
    for name, olds in taken.items():
        if len(olds) > 1:
            listed = ", ".join(map(repr, olds))
            raise StudyError(f"{key_path}: families {listed} are both {name!r} here; expected one name for each")
        if name in families:
            raise StudyError(
                f"{key_path}: imported family {name!r} has the name of a family of this study; expected another name"
            )
    return with_names(imported, names)


def with_names(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows with renamed families; rows of skipped files have none."""
    return [
        {**row, "family": names.get(row["family"], row["family"])} if "family" in row else dict(row) for row in rows
    ]
