"""What the page is made from: the tables of a study, its settings, and the files of its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.evaluation import metric_names
from workflow.report.findings import FindingTables
from workflow.storage import tables
from workflow.study import grid, token_axis

TUNED_KEYS = ("family", "step", "train", "format", "recipe", "suite")
TEST_KEYS = ("test", "test_format", "shots")


@dataclass(frozen=True)
class PageInputs:
    """The inputs of the page.

    tables: by their path below `results/`, without suffix; settings: the config, defaults filled in; results: folder with
    the files of predictions and of scored rows; prepared: folder of test rows; parameters: of each family's bases, where known.
    """

    tables: Mapping[str, pd.DataFrame]
    settings: Mapping[str, Any]
    results: Path = Path("results")
    prepared: Path = Path("resources/tasks")
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """The level of the confidence intervals."""
        return self.settings["statistics"]["level"]

    @cached_property
    def material(self) -> FindingTables:
        """The tables as findings read them."""
        return FindingTables(self.tables, self.level, self.settings["groups"])

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name; an empty frame where the study has none."""
        return self.tables.get(name, pd.DataFrame())

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The scores in the primary metric of each test, without tests that are part of a mean."""
        scores = self.table("scores")
        if scores.empty:
            return scores
        rows = metric_names.primary(scores)
        return rows[~rows["test"].isin(metric_names.parts(scores))]

    @cached_property
    def tokens(self) -> Mapping[str, Mapping[int, float]]:
        """Tokens of each family's steps, where known."""
        return token_axis.seen(self.table("scores"))

    def step_name(self, family: str, step: float) -> str:
        """A step with its tokens where they are known."""
        return token_axis.told(self.tokens, family, step)

    @cached_property
    def several_families(self) -> bool:
        """Whether sentences must name the family."""
        return self.scores.empty or self.scores["family"].nunique() > 1

    def checkpoint(self, family: str, step: float) -> str:
        """The name of a checkpoint in a sentence: `step 1000 (2.1B tokens) of mini`."""
        return f"{self.step_name(family, step)} of {family}"

    def cell_rows(
        self, folder: str, where: Mapping[str, Any], keys: Mapping[str, Any], columns: list[str] | None = None
    ) -> pd.DataFrame:
        """The rows of one model and suite in a folder (`predictions`, `items`) that have some keys; empty if there are none.

        where: keys of the model and its suite; columns: those to read, all by default.
        """
        paths = sorted((self.results / folder / grid.path(where, grid.CELL_KEYS)).glob("tests=*/part.parquet"))
        parts = [tables.matching(tables.read(path, columns), keys) for path in paths]
        return pd.concat(parts) if parts else pd.DataFrame()
