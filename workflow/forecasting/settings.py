"""The config's block of forecasting, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.forecasting import printed, variants
from workflow.forecasting.forecasters import NAMES


def check(block: Mapping[str, Any]) -> None:
    """StudyError unless the names in a `variants` block fit each other and the files that it names are sound."""
    for key in ("path", "printed"):
        path = Path(block.get(key, block["path"]))
        if path.is_absolute() or ".." in path.parts:
            raise StudyError(
                f"config.yaml: variants/{key}: {str(path)!r} leaves the study's folder; expected a file inside it"
            )
    _check_names(block)
    variants.read(block)
    if "printed" in block:
        printed.read(Path(block["printed"]))


def _check_names(block: Mapping[str, Any]) -> None:
    """StudyError for a column that is named twice or like a forecaster, and for one that is not named at all."""
    taken = {block["key"], *NAMES}
    for part in ("fields", "indicators", "targets"):
        for name in block[part]:
            if name in taken:
                reserved = ", ".join(sorted(NAMES))
                raise StudyError(
                    f"config.yaml: variants/{part}: {name!r} is taken; allowed: columns named once, none of {reserved}"
                )
            taken.add(name)
    for place, names, part in _references(block):
        for name in names:
            if name not in block[part]:
                raise StudyError(
                    f"config.yaml: variants/{place}: {name!r} is not known; allowed: {', '.join(block[part])}"
                )


def _references(block: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[str], str]]:
    """Where a block names columns again: place, names, and the part that they have to be of."""
    for name, weights in block["combinations"].items():
        yield f"combinations/{name}", weights, "indicators"
    for number, fields in enumerate(block["contrasts"]):
        yield f"contrasts/{number}", fields, "fields"
    yield "test_rows", block["test_rows"], "targets"
