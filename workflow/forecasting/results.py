"""What forecasting from indicators starts from and ends in: the block of the config and the gathered tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import tables
from workflow.forecasting import printed, variants
from workflow.forecasting.variants import Variants


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
