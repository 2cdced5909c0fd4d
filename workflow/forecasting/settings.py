"""The config's cohorts: checked before anything runs, and brought into one form, whether read from a file or assembled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.forecasting import cohorts, published_numbers
from workflow.forecasting.forecasters import NAMES

BEYOND = ("test_rows", "full_score", "printed", "scored")  # parts of a block that no forecast depends on


def assembled(block: Mapping[str, Any]) -> bool:
    """Whether a cohort is made of the study's own bases."""
    return "path" not in block


def table(name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """A cohort's block as that of a table: of the study's own bases, the one that is assembled of them.

    `scored` then says which scores each target is the mean of.
    """
    if not assembled(block):
        return dict(block)
    own = {"path": f"results/cohorts/{name}.csv", "key": cohorts.BASE, "run": cohorts.RUN, "assembled": True}
    rest = {"targets": list(block["targets"]), "scored": block["targets"], "test_rows": {}, "full_score": 1.0}
    kept = ("fields", "indicators", "combinations", "chosen_on_targets", "contrasts")
    return {**{key: block[key] for key in kept if key in block}, **own, **rest}


def forecasting(block: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a table's block that forecasts depend on."""
    return {key: value for key, value in block.items() if key not in BEYOND}


def check(name: str, block: Mapping[str, Any]) -> None:
    """StudyError unless the names in a cohort's block fit each other and the files that it names are sound."""
    place = f"cohorts/{name}"
    for key in ("path", "printed"):
        path = Path(block.get(key, ""))
        if path.is_absolute() or ".." in path.parts:
            raise StudyError(
                f"config.yaml: {place}/{key}: {str(path)!r} leaves the study's folder; expected a file inside it"
            )
    _check_names(place, table(name, block))
    if not assembled(block):
        cohorts.check(block)
    if "printed" in block:
        published_numbers.read(Path(block["printed"]))


def _check_names(place: str, block: Mapping[str, Any]) -> None:
    """StudyError for a column that is named twice or like a forecaster, and for one that is not named at all."""
    taken = {block["key"], block.get("run"), *NAMES}
    for part in ("fields", "indicators", "targets"):
        for name in block[part]:
            if name in taken:
                reserved = ", ".join(sorted(NAMES))
                raise StudyError(
                    f"config.yaml: {place}/{part}: {name!r} is taken; allowed: columns named once, none of {reserved}"
                )
            taken.add(name)
    for own, names, part in _references(block):
        for name in names:
            if name not in block[part]:
                raise StudyError(
                    f"config.yaml: {place}/{own}: {name!r} is not known; allowed: {', '.join(block[part])}"
                )


def _references(block: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[str], str]]:
    """Where a block names columns again: place, names, and the part that they have to be of."""
    for name, weights in block["combinations"].items():
        yield f"combinations/{name}", weights, "indicators"
    for number, fields in enumerate(block["contrasts"]):
        yield f"contrasts/{number}", fields, "fields"
    yield "chosen_on_targets", block.get("chosen_on_targets", ()), "combinations"
    yield "test_rows", block["test_rows"], "targets"
