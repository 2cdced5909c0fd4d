"""One module for each table of a study: `summarise(material) -> DataFrame`, a row for each thing that it lists.

A module also names the keys of the config that it READS, and what it NEEDS of a study (see `grid.read`). Numbers keep
their full precision in the frame and the CSV file; the Markdown file rounds them and puts an interval behind its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from workflow.errors import StudyError
from workflow.models import checkpoints
from workflow.settings import Base, Study
from workflow.storage import tables
from workflow.storage.markdown import INTERVAL

FACTS = ("n", "p_value", "seed_variance")


@dataclass(frozen=True)
class StudyTables:
    """The inputs of all tables.

    study: the config, as far as the module READS it; scores, analysis: the gathered tables, with imported scores; manifests:
    of the bases; prepared: tasks as prepared rows; benchmarks: folder with Snakemake's measurements of jobs.
    """

    study: Study
    scores: pd.DataFrame
    analysis: pd.DataFrame
    manifests: Sequence[Path]
    prepared: Sequence[Path]
    benchmarks: Path

    @cached_property
    def bases(self) -> list[Base]:
        """The manifest of each base (`checkpoints.locate`)."""
        return [checkpoints.read_base(path) for path in self.manifests]

    @cached_property
    def rows(self) -> dict[str, dict[str, int]]:
        """Prepared task -> split -> number of rows."""
        return {path.stem: tables.read(path, ["split"])["split"].value_counts().to_dict() for path in self.prepared}

    def seconds(self, job: str) -> float | None:
        """Wall time of a job by its path in the folder of benchmarks; None if it was not measured."""
        path = self.benchmarks / f"{job}.tsv"
        if not path.is_file():
            return None
        return float(pd.read_csv(path, sep="\t")["s"].iloc[-1])

    def analysed(self, name: str) -> pd.DataFrame:
        """The rows of one analysis without empty columns, sorted by keys and step, rows without a value last.

        Errors: StudyError if there is no row.
        """
        rows = self.analysis[self.analysis["analysis"] == name]
        if rows.empty:
            raise StudyError(f"config.yaml: summaries: '{name}' has no row to show: no model was tested for it")
        order = [key for key in ("family", "suite", *tables.ANALYSIS.names) if key not in ("step", *INTERVAL, *FACTS)]
        keys = list(dict.fromkeys([*order, "step"]))
        sorted_rows = rows.assign(missing=rows["value"].isna()).sort_values(["missing", *keys])
        return sorted_rows[[*keys, *INTERVAL, *FACTS]].dropna(axis="columns", how="all")
