"""Check the config's cohorts before anything runs, and bring blocks of given and of own tables into one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from workflow.errors import StudyError
from workflow.forecasting import cohorts, published_numbers
from workflow.forecasting.forecasters import NAMES
from workflow.settings import Cohort as CohortBlock
from workflow.settings import CohortTable

BEYOND = ("test_rows", "full_score", "printed", "scored")  # keys of a block that no forecast depends on


def assembled(block: CohortBlock) -> bool:
    """Return whether a cohort consists of the study's bases."""
    return "path" not in block


def table(name: str, block: CohortBlock) -> CohortTable:
    """Return a cohort's block in the form of a given table; for the study's bases, of the table that the study writes.

    `scored` then holds the scores of which each target is the mean.
    """
    if not assembled(block):
        return cast(CohortTable, dict(block))
    source = {"path": f"results/cohorts/{name}.csv", "key": cohorts.BASE, "run": cohorts.RUN, "assembled": True}
    rest = {"targets": list(block["targets"]), "scored": block["targets"], "test_rows": {}, "full_score": 1.0}
    shared_keys = ("fields", "indicators", "combinations", "chosen_on_targets", "contrasts")
    shared = {key: value for key, value in block.items() if key in shared_keys}
    return cast(CohortTable, {**shared, **source, **rest})


def forecasting(block: CohortTable) -> dict[str, Any]:
    """Return the part of a table's block on which forecasts depend."""
    return {key: value for key, value in block.items() if key not in BEYOND}


def check(name: str, block: CohortBlock) -> None:
    """Raise StudyError unless the names in a cohort's block are consistent and its files are valid."""
    key_path = f"cohorts/{name}"
    for key, name_of_file in (("path", block.get("path", "")), ("printed", block.get("printed", ""))):
        path = Path(name_of_file)
        if path.is_absolute() or ".." in path.parts:
            raise StudyError(
                f"config.yaml: {key_path}/{key}: {str(path)!r} leaves the study's folder; expected a file inside it"
            )
    _check_names(key_path, table(name, block))
    if not assembled(block):
        cohorts.check(table(name, block))
    if "printed" in block:
        published_numbers.read(Path(block["printed"]))


def _check_names(key_path: str, block: CohortTable) -> None:
    """Raise StudyError for a column that is named twice or like a forecaster, and for a reference to an unknown column."""
    taken = {block["key"], block.get("run"), *NAMES}
    columns = {"fields": block["fields"], "indicators": block["indicators"], "targets": block["targets"]}
    for part, names_of_part in columns.items():
        for name in names_of_part:
            if name in taken:
                reserved = ", ".join(sorted(NAMES))
                raise StudyError(
                    f"config.yaml: {key_path}/{part}: {name!r} is already in use; allowed: columns named once, none of {reserved}"
                )
            taken.add(name)
    known: dict[str, Iterable[str]] = {**columns, "combinations": block["combinations"]}
    for key, names, part in _references(block):
        for name in names:
            if name not in known[part]:
                raise StudyError(
                    f"config.yaml: {key_path}/{key}: {name!r} is not known; allowed: {', '.join(known[part])}"
                )


def _references(block: CohortTable) -> Iterator[tuple[str, Iterable[str], str]]:
    """Yield references to columns in a block: key, names, and the part of the block that must contain them."""
    for name, weights in block["combinations"].items():
        yield f"combinations/{name}", weights, "indicators"
    for number, fields in enumerate(block["contrasts"]):
        yield f"contrasts/{number}", fields, "fields"
    yield "chosen_on_targets", block.get("chosen_on_targets", ()), "combinations"
    yield "test_rows", block["test_rows"], "targets"
