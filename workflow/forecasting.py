"""What forecasting from indicators starts from and ends in: the block of the config, its tables, what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import printed, tables, variants
from workflow.errors import StudyError
from workflow.forecasters import NAMES
from workflow.variants import Variants


@dataclass(frozen=True)
class Forecasting:
    """The variants of a study and how well they are forecast.

    block: the config's `variants`; forecasts, rankings, importance: the gathered tables of these names; published: what
    was printed elsewhere, in the columns of `printed`, None where the config names no such file.
    """

    block: Mapping[str, Any]
    variants: Variants
    forecasts: pd.DataFrame
    rankings: pd.DataFrame
    importance: pd.DataFrame
    published: pd.DataFrame | None

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """Every printed number beside this study's (`printed.compare`); empty where none are named."""
        if self.published is None:
            return printed.EMPTY
        return printed.compare(self.published, self.forecasts, self.rankings, self.importance)


def load(block: Mapping[str, Any], forecasts: Path, rankings: Path, importance: Path) -> Forecasting:
    """The forecasting of a study from its block and the files of its gathered tables."""
    published = printed.read(Path(block["printed"])) if "printed" in block else None
    gathered = [tables.read(path) for path in (forecasts, rankings, importance)]
    return Forecasting(block, variants.read(block), *gathered, published)


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
