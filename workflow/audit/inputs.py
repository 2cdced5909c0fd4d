"""The inputs of checks: scores, analyses, predictions, tasks and bases of a study; large tables are read on demand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import registry, task
from workflow.audit import checks
from workflow.errors import escaped
from workflow.evaluation import metric_names
from workflow.forecasting.results import Forecasting
from workflow.models import checkpoints
from workflow.settings import Base
from workflow.storage import tables
from workflow.study import grid

KEYS = [*grid.CELL_KEYS, *grid.TEST_KEYS, "metric"]
TEST_KEYS = ["family", "suite", *grid.TEST_KEYS]
PLACE_KEYS = [*grid.BASE_KEYS, "suite", *grid.TEST_KEYS, "metric"]  # shared by a tuned model and its base


class Part:
    """A file of predictions: its rows, test by test, and its columns as arrays."""

    def __init__(self, table: pd.DataFrame) -> None:
        """table: columns of `tables.PREDICTIONS`; tests in several pieces are joined."""
        keys = table[grid.TEST_KEYS]
        self.starts = np.flatnonzero((keys != keys.shift()).any(axis=1))
        if len(self.starts) > (~keys.duplicated()).sum():
            table = pd.concat([rows for _, rows in table.groupby(grid.TEST_KEYS, sort=False)], ignore_index=True)
            keys = table[grid.TEST_KEYS]
            self.starts = np.flatnonzero((keys != keys.shift()).any(axis=1))
        self.table = table
        self._arrays: dict[str, NDArray[Any]] = {}

    def tests(self) -> Iterator[tuple[dict[str, Any], slice]]:
        """Keys and place of each test, in the order of their first rows."""
        ends = np.append(self.starts, len(self.table))[1:]
        heads = self.table[grid.TEST_KEYS].iloc[self.starts].itertuples(index=False, name=None)
        for start, end, head in zip(self.starts, ends, heads, strict=True):
            yield dict(zip(grid.TEST_KEYS, head, strict=True)), slice(start, end)

    def array(self, name: str) -> NDArray[Any]:
        """A column: numbers as float, null as NaN; text and lists as objects."""
        if name not in self._arrays:
            column = self.table[name]
            numbers = pd.api.types.is_integer_dtype(column.dtype)
            self._arrays[name] = column.to_numpy(float, na_value=np.nan) if numbers else column.to_numpy(dtype=object)
        return self._arrays[name]


@dataclass(frozen=True)
class TestRows:
    """Predictions of one model on one test. keys: KEYS without metric, and the suite's `protocol`.

    `test[name]` is a column of `tables.PREDICTIONS` as an array (`Part.array`), which is quick; `test.rows` is a frame with the
    columns that were read. Older predictions may lack a column: it is null.
    """

    __test__ = False  # its name is not that of a class of tests

    keys: dict[str, Any]
    part: Part
    place: slice

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column as an array, shape (rows,)."""
        return self.part.array(name)[self.place]

    def __len__(self) -> int:
        """Number of rows."""
        return self.place.stop - self.place.start

    @property
    def rows(self) -> pd.DataFrame:
        """All columns as a frame."""
        return self.part.table.iloc[self.place].reset_index(drop=True)


@dataclass(frozen=True)
class AuditInputs:
    """The inputs of a check.

    scores, analysis: the gathered tables, imported scores included; parts: predictions of cells or of parts of cells;
    manifests: of the bases; prepared: prepared rows of tasks; groups: of the study; forecasting: one for each cohort;
    indicators: the gathered table, None without measured indicators; measures: the config's block of indicators; holes: models
    that are missing because fine-tuning diverged (`missing_models.found`); files: of all imports, in the columns of
    `tables.RELEASED`; adopted: records of models that were tuned elsewhere.
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
    adopted: Sequence[Path] = ()
    _read: dict[str, list[Any]] = field(default_factory=dict)

    def predictions(self, *columns: str) -> Iterator[TestRows]:
        """Yield the predictions of each test of each cell, in the order of the parts; columns: names of `tables.PREDICTIONS`."""
        for part, (keys, facts) in zip(self.parts, self.settings, strict=True):
            wanted = [*grid.TEST_KEYS, *columns]
            read = Part(tables.read(part, wanted).reindex(columns=wanted))
            shared = keys | {"protocol": facts["suite_settings"]["protocol"]}
            for test, test_rows in read.tests():
                yield TestRows(shared | test, read, test_rows)

    def read(self, names: Iterable[str]) -> None:
        """Read all predictions once for several checks, whose `read` tells what they need of one test (see `checks`)."""
        wanted = {name: registry.module(checks, name) for name in names}
        columns = dict.fromkeys(column for check in wanted.values() for column in check.READS)
        self._read.update({name: [] for name in wanted})
        seen: set[tuple[Any, ...]] = set()
        for test in self.predictions(*columns) if wanted else ():
            for name, check in wanted.items():
                slot = (name, *(test.keys[key] for key in getattr(check, "FIRST", ())))
                if len(slot) > 1 and slot in seen:
                    continue
                seen.add(slot)
                if (content := check.read(test, self)) is not None:
                    self._read[name].append(content)

    def readings(self, check: str) -> list[Any]:
        """What a check's `read` found in each test of each cell, None left out. check: its module's name."""
        name = check.rpartition(".")[2]
        if name not in self._read:
            self.read([name])
        return self._read[name]

    @cached_property
    def settings(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The keys of each part's cell with its recorded facts: suite settings, base, versions."""
        entries = []
        for part in self.parts:
            keys = tables.keys_of(part)
            cell = {name: int(keys[name]) if name in ("step", "seed") else keys[name] for name in grid.CELL_KEYS}
            entries.append((cell, tables.check_origin(part)))
        return entries

    @cached_property
    def contexts(self) -> dict[tuple[str, int], int | None]:
        """The context length of each base by its config, in tokens; None where the folder or the entry is missing."""
        return {(base["family"], base["step"]): _context(base) for base in self.bases()}

    def bases(self) -> list[Base]:
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
        """Imported scores: those of cells without predictions in this study."""
        predicted = {tuple(keys.values()) for keys, _ in self.settings}
        cells = self.scores[grid.CELL_KEYS].itertuples(index=False, name=None)
        return self.scores[np.array([cell not in predicted for cell in cells], dtype=bool)]

    @cached_property
    def imported_tests(self) -> frozenset[str]:
        """Tests with imported scores."""
        return frozenset(self.imported["test"])

    @cached_property
    def primary(self) -> pd.DataFrame:
        """Scores in the primary metric of each test."""
        return metric_names.primary(self.scores)

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Primary scores of tuned models, with `base` and `base_error` of their untouched base, null where it has none."""
        untouched = self.primary["recipe"] == "none"
        bases = self.primary[untouched].rename(columns={"value": "base", "error": "base_error"})
        return self.primary[~untouched].merge(bases[[*PLACE_KEYS, "base", "base_error"]], how="left", on=PLACE_KEYS)


def _context(base: Base) -> int | None:
    path = Path(base["path"]) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings") if path.is_file() else None


def findings(material: AuditInputs) -> list[dict[str, Any]]:
    """The findings of all checks by name. A module has a `check` of the study or a `check_cohort` of each cohort."""
    material.read(name for name in registry.modules(checks) if hasattr(registry.module(checks, name), "READS"))
    return [
        {"check": name, **finding}
        for name in registry.modules(checks)
        for finding in findings_of(material, registry.module(checks, name))
    ]


def findings_of(material: AuditInputs, check: ModuleType) -> Iterator[dict[str, Any]]:
    """The findings of one check."""
    if hasattr(check, "check"):
        yield from check.check(material)
    else:
        for forecasts in (one for one in material.forecasting if len(one.cohort.rows) > 1):
            yield from ({"cohort": forecasts.name, **finding} for finding in check.check_cohort(forecasts))


def finding(severity: str, rows: pd.DataFrame, evidence: str, **figures: float | None) -> dict[str, Any]:
    """A row of `tables.AUDIT` without `check`, with the keys that all rows share; figures: value, limit, n."""
    shared = {key: rows[key].iloc[0] for key in KEYS if key in rows and rows[key].nunique(dropna=False) == 1}
    known = {key: value for key, value in shared.items() if pd.notna(value)}
    keys = {key: int(value) if key in ("step", "seed", "shots") else str(value) for key, value in known.items()}
    return {**keys, "severity": severity, "evidence": escaped(evidence), **figures}


def method_of(test: str) -> str | None:
    """The prediction method of a test's kind (`label`, `rank`, `generate`, `answer`); None for a test that is not a task."""
    return task.method(test)


def listed(values: Iterable[Any], most: int = 6) -> str:
    """Distinct values in words, in order; those beyond `most` are counted."""
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
    """Pre-training steps in order, after their noun."""
    distinct = sorted(set(steps))
    return f"step{'' if len(distinct) == 1 else 's'} {listed(distinct, 9)}"


def normalised(text: str) -> str:
    """Text in lower case without punctuation and extra white space, so that rows differ in words alone."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def inputs(material: AuditInputs, name: str, split: str | None, choices: bool = False) -> pd.DataFrame:
    """The inputs of a prepared split: columns id, answer and text, normalised, with the choices of each row if asked for.

    The input of a conversation is the text of its users.
    """
    rows = material.examples(name, ["id", "split", "fields", "choices", "answer", "turns"])
    rows = rows[rows["split"] == split]
    with_choices = choices and method_of(name) == "rank"
    texts = [normalised(" ".join([*_parts(row), *(row.choices if with_choices else ())])) for row in rows.itertuples()]
    return rows[["id", "answer"]].assign(text=texts)


def _parts(row: Any) -> list[str]:
    """The texts of a prepared row's fields, or of the users in its conversation."""
    turns = getattr(row, "turns", None)
    texts = [turn["content"] for turn in turns if turn["role"] == "user"] if turns is not None else []
    return [*dict(row.fields).values(), *texts]
