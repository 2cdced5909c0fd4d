"""What checks look at: a study's scores, analyses, predictions, tasks and bases, big tables read only when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import audits, grid, tables


@dataclass(frozen=True)
class Material:
    """All that a check may look at.

    scores, analysis: the gathered tables (imported scores among them); parts: predictions of each cell; manifests: of
    the bases; prepared: tasks as prepared rows; groups: the study's.
    """

    scores: pd.DataFrame
    analysis: pd.DataFrame
    parts: Sequence[Path]
    manifests: Sequence[Path]
    prepared: Sequence[Path]
    groups: Mapping[str, Any]

    def predictions(self) -> Iterator[pd.DataFrame]:
        """The predictions of one cell after the other, with the cell's keys as columns."""
        for part in self.parts:
            yield tables.frame(tables.gather([part], grid.CELL_KEYS, tables.PREDICTIONS))

    def settings(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Keys of each cell with the facts recorded with its predictions: suite settings, base, versions."""
        for part in self.parts:
            yield dict(folder.split("=", 1) for folder in part.parent.parts if "=" in folder), tables.recorded(part)

    def bases(self) -> list[dict[str, Any]]:
        """The manifest of each base (`sources.locate`)."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in self.manifests]

    def examples(self, name: str) -> pd.DataFrame:
        """A task's prepared rows, in the columns of `tables.EXAMPLES`."""
        return tables.read(next(path for path in self.prepared if path.stem == name))


def findings(material: Material) -> list[dict[str, Any]]:
    """What all checks find, in the order of their names."""
    return [
        {"check": name, **finding}
        for name in grid.modules(audits)
        for finding in grid.module(audits, name).check(material)
    ]
