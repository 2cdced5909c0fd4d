"""What checks look at: a study's scores, analyses, predictions, tasks and bases, big tables read only when asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from workflow import registry, task
from workflow.audit import checks
from workflow.errors import escaped
from workflow.evaluation import metric_names
from workflow.forecasting.results import Forecasting
from workflow.models import checkpoints
from workflow.storage import tables
from workflow.study import grid

KEYS = [*grid.CELL_KEYS, *grid.TEST_KEYS, "metric"]
TEST_KEYS = ["family", "suite", *grid.TEST_KEYS]
PLACE_KEYS = [*grid.BASE_KEYS, "suite", *grid.TEST_KEYS, "metric"]  # what a tuned model's score shares with its base's


@dataclass(frozen=True)
class Material:
    """All that a check may look at.

    scores, analysis: the gathered tables (imported scores among them); parts: predictions, each of a cell or of one of its
    parts; manifests: of the bases; prepared: tasks as prepared rows; groups: the study's; forecasting: of each of
    its cohorts; indicators: the gathered table, None where no base is run for one; measures: the study's block of
    indicators; holes: the models that are missing because their tuning diverged (`missing_models.found`); files: of all
    imports, in the columns of `tables.RELEASED`.
    """

    scores: pd.DataFrame
    analysis: pd.DataFrame
    parts: Sequence[Path]
    manifests: Sequence[Path]
    prepared: Sequence[Path]
    groups: Mapping[str, Any]
    forecasting: Sequence[Forecasting] = ()
    indicators: pd.DataFrame | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)
    holes: Sequence[Mapping[str, Any]] = ()
    files: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=tables.RELEASED.names))

    def predictions(self, *columns: str) -> Iterator[pd.DataFrame]:
        """The rows of one test in one cell after the other: KEYS (without metric), the suite's `protocol`, the columns.

        columns: names of `tables.PREDICTIONS`, null in predictions that were made before there was such a column.
        """
        for part, (keys, facts) in zip(self.parts, self.settings(), strict=True):
            wanted = [*grid.TEST_KEYS, *columns]
            found = tables.read(part, wanted).reindex(columns=wanted)
            found = found.assign(**keys, protocol=facts["suite_settings"]["protocol"])
            for _, rows in found.groupby(grid.TEST_KEYS, sort=False):
                yield rows.reset_index(drop=True)

    def settings(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Keys of the cell of each part with the facts recorded with it: suite settings, base, versions."""
        for part in self.parts:
            keys = tables.keys_of(part)
            cell = {name: int(keys[name]) if name in ("step", "seed") else keys[name] for name in grid.CELL_KEYS}
            yield cell, tables.check_origin(part)

    def bases(self) -> list[dict[str, Any]]:
        """The manifest of each base (`checkpoints.locate`)."""
        return [checkpoints.read_base(path) for path in self.manifests]

    def examples(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A task's prepared rows, in the columns of `tables.EXAMPLES`."""
        return tables.read(next(path for path in self.prepared if path.stem == name), columns)

    @property
    def tasks(self) -> list[str]:
        """Names of the prepared tasks."""
        return [path.stem for path in self.prepared]

    @cached_property
    def imported(self) -> pd.DataFrame:
        """Scores that others made: of cells without predictions here."""
        own = {tuple(keys.values()) for keys, _ in self.settings()}
        cells = self.scores[grid.CELL_KEYS].itertuples(index=False, name=None)
        return self.scores[np.array([cell not in own for cell in cells], dtype=bool)]

    @cached_property
    def primary(self) -> pd.DataFrame:
        """Scores in the metric that a test is read in."""
        return metric_names.primary(self.scores)

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Primary scores of tuned models, with `base` and `base_error` of their untouched base, null where it has none."""
        untouched = self.primary["recipe"] == "none"
        bases = self.primary[untouched].rename(columns={"value": "base", "error": "base_error"})
        return self.primary[~untouched].merge(bases[[*PLACE_KEYS, "base", "base_error"]], how="left", on=PLACE_KEYS)


def findings(material: Material) -> list[dict[str, Any]]:
    """What all checks find, in the order of their names: a module has a `check` of the whole or a `check_cohort` of each."""
    return [
        {"check": name, **finding}
        for name in registry.modules(checks)
        for finding in found(material, registry.module(checks, name))
    ]


def found(material: Material, check: ModuleType) -> Iterator[dict[str, Any]]:
    """What one check finds."""
    if hasattr(check, "check"):
        yield from check.check(material)
    else:
        for own in (one for one in material.forecasting if len(one.cohort.rows) > 1):
            yield from ({"cohort": own.name, **finding} for finding in check.check_cohort(own))


def finding(severity: str, rows: pd.DataFrame, evidence: str, **figures: float | None) -> dict[str, Any]:
    """A row of `tables.AUDIT` without `check`: its keys are those that all rows share; figures: value, limit, n."""
    shared = {key: rows[key].iloc[0] for key in KEYS if key in rows and rows[key].nunique(dropna=False) == 1}
    known = {key: value for key, value in shared.items() if pd.notna(value)}
    keys = {key: int(value) if key in ("step", "seed", "shots") else str(value) for key, value in known.items()}
    return {**keys, "severity": severity, "evidence": escaped(evidence), **figures}


def method_of(test: str) -> str | None:
    """How a test is predicted by its kind (`label`, `rank`, `generate`); None for what is no task here."""
    return task.method(test)


def listed(values: Iterable[Any], most: int = 6) -> str:
    """Different values in a sentence, in order; what is beyond `most` is counted."""
    names = [str(value) for value in dict.fromkeys(values)]
    beyond = [f"{len(names) - most} more"] if len(names) > most else []
    *first, last = [*names[:most], *beyond]
    return f"{', '.join(first)} and {last}" if first else last


def span(values: pd.Series, form: str = ".3f") -> str:
    """The range of values, or the one value."""
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 model`, `2 models`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def models(trains: Iterable[str]) -> str:
    """Models by what they were tuned on: `untouched bases`, `models tuned on mnli`, or both."""
    tuned = sorted({train for train in trains if train != "none"})
    names = ["untouched bases"] if "none" in set(trains) else []
    return listed([*names, f"models tuned on {listed(tuned)}"] if tuned else names)


def at_steps(steps: Iterable[int]) -> str:
    """Training steps in order, after their noun."""
    found = sorted(set(steps))
    return f"step{'' if len(found) == 1 else 's'} {listed(found, 9)}"


def normalised(text: str) -> str:
    """Text without case, punctuation and the kind of white space, so that rows differ in words alone."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def inputs(material: Material, name: str, split: str | None, choices: bool = False) -> pd.DataFrame:
    """The inputs of a prepared split: columns id, answer and text, normalised, with the row's own choices if asked for.

    Of a conversation, what its users say.
    """
    rows = material.examples(name, ["id", "split", "fields", "choices", "answer", "turns"])
    rows = rows[rows["split"] == split]
    own = choices and method_of(name) == "rank"
    texts = [normalised(" ".join([*_parts(row), *(row.choices if own else ())])) for row in rows.itertuples()]
    return rows[["id", "answer"]].assign(text=texts)


def _parts(row: Any) -> list[str]:
    """What the fields of a prepared row hold, or the users of its conversation say."""
    turns = getattr(row, "turns", None)
    said = [turn["content"] for turn in turns if turn["role"] == "user"] if turns is not None else []
    return [*dict(row.fields).values(), *said]
