"""Families of imported results under the names that a study gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workflow.errors import StudyError


def renamed(
    place: str, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str], families: Sequence[str]
) -> list[dict[str, Any]]:
    """Imported rows with their families renamed; place: of the renaming in the config; families: the study's own.

    Errors: StudyError for a name that no row has, for two families that get one name, and for a family of the study, whose
    scores would be taken for its own.
    """
    found = list(rows)
    there = sorted({row["family"] for row in found})
    for old in set(names) - set(there):
        raise StudyError(f"{place}: found no family {old!r}; allowed: {', '.join(there)}")
    taken: dict[str, list[str]] = {}
    for old in there:
        taken.setdefault(names.get(old, old), []).append(old)
    for name, olds in taken.items():
        if len(olds) > 1:
            listed = ", ".join(map(repr, olds))
            raise StudyError(f"{place}: families {listed} are both {name!r} here; expected one name for each")
        if name in families:
            raise StudyError(
                f"{place}: imported family {name!r} is one of this study's; expected a name of its own for it"
            )
    return with_names(found, names)


def with_names(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows with their families renamed; of a file that was left out nothing is known."""
    return [
        {**row, "family": names.get(row["family"], row["family"])} if "family" in row else dict(row) for row in rows
    ]
