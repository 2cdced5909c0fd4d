"""What a study has measured, ready to compare: levels of models on tests, what tuning changes of them, means over several.

A level is known row by row (`Sample`, from a study's own predictions) or as a score with its standard error (`Reported`,
from imported results). Either can be resampled, so analyses need not know which it is.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import task
from workflow.metrics import PRIMARY
from workflow.statistics import Resampling, weighted_mean

Values = NDArray[np.float64]

PAIR_KEYS = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
PLACE_KEYS = ["family", "step", "suite", "test", "test_format", "shots"]


@dataclass(frozen=True)
class Sample:
    """Values of a model on the rows of a test in the test's primary metric.

    keys: PAIR_KEYS and their values; values: shape (seeds, rows); ids: of the rows, in the order of the columns.
    """

    keys: dict[str, Any]
    values: Values
    ids: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The mean over seeds and rows."""
        return float(self.values.mean())

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.values.shape[1]

    @property
    def uncertain(self) -> bool:
        """Whether its uncertainty is known."""
        return True

    def resampled(self, how: Resampling) -> Values:
        """Means over resampled rows, and over resampled seeds where there are several: one for each resample.

        Seeds and rows are crossed, so both are resampled as a whole (the "pigeonhole" bootstrap, Owen 2007). Samples on
        the same rows are resampled together: their difference is that of a paired comparison.
        """
        seeds, rows = self.values.shape
        seed_weights = np.concatenate(list(replace(how, seed=how.seed + 1).weights(seeds)))
        by_row = np.concatenate([weights @ self.values.T for weights in how.weights(rows)])
        return np.einsum("bs,bs->b", seed_weights, by_row) / (seeds * rows)


@dataclass(frozen=True)
class Reported:
    """A score that others report with its standard error, seeds averaged; rows are not known.

    keys: PAIR_KEYS and their values; error, n (rows): None where not reported.
    """

    keys: dict[str, Any]
    value: float
    error: float | None
    n: int | None = None

    @property
    def uncertain(self) -> bool:
        """Whether its uncertainty is known."""
        return self.error is not None

    def resampled(self, how: Resampling) -> Values:
        """Draws from a normal distribution around the score, independent of every other score's; without error the score."""
        own = zlib.crc32(json.dumps([str(self.keys[key]) for key in PAIR_KEYS]).encode())
        return np.random.default_rng([how.seed, own]).normal(self.value, self.error or 0.0, how.resamples)


Level = Sample | Reported


@dataclass(frozen=True)
class Change:
    """A tuned model beside its own untouched base on the same test, tested in the same way. keys: those of the tuned model."""

    tuned: Level
    base: Level

    @property
    def keys(self) -> dict[str, Any]:
        """PAIR_KEYS of the tuned model."""
        return self.tuned.keys

    @property
    def value(self) -> float:
        """Tuned minus base."""
        return self.tuned.value - self.base.value

    @property
    def n(self) -> int | None:
        """Number of rows."""
        return self.tuned.n

    @property
    def uncertain(self) -> bool:
        """Whether its uncertainty is known."""
        return self.tuned.uncertain and self.base.uncertain

    def resampled(self, how: Resampling) -> Values:
        """The difference in each resample; row by row where rows are known."""
        return self.tuned.resampled(how) - self.base.resampled(how)


@dataclass(frozen=True)
class Evidence:
    """All that a study has measured or imported.

    items: rows of `tables.ITEMS` with the keys of their cells; reported: rows of `tables.SCORES`, likewise.
    """

    items: pd.DataFrame
    reported: pd.DataFrame

    @cached_property
    def levels(self) -> list[Level]:
        """Every model's level on every test, seeds together; the untouched base is one of the models (train `none`).

        Errors: ValueError when a seed lacks rows that another has.
        """
        return [*_samples(_primary(self.items)), *_reports(self.reported)]

    @cached_property
    def changes(self) -> list[Change]:
        """Every tuned model beside its own base on every test. A reported model without its base is in no change.

        Errors: ValueError when a base was not scored on the rows of its tuned model.
        """
        bases = {_place(level): level for level in self.levels if level.keys["recipe"] == "none"}
        tuned = [level for level in self.levels if level.keys["recipe"] != "none"]
        pairs = [Change(level, bases[_place(level)]) for level in tuned if _place(level) in bases or _needed(level)]
        for pair in pairs:
            _check_rows(pair)
        return pairs


def _place(level: Level) -> tuple[Any, ...]:
    """Base and way of testing of a level: what a base shares with the models tuned from it."""
    return tuple(level.keys[key] for key in PLACE_KEYS)


def _needed(level: Level) -> bool:
    """ValueError for a sample without a base; a reported level may lack one."""
    if isinstance(level, Sample):
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {level.keys}")
    return False


def _check_rows(change: Change) -> None:
    """ValueError unless base and tuned model were scored on the same rows, as far as rows are known."""
    tuned, base = change.tuned, change.base
    if isinstance(tuned, Sample) and isinstance(base, Sample) and tuned.ids != base.ids:
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {change.keys}")


def _primary(items: pd.DataFrame) -> pd.DataFrame:
    """The rows of each test's primary metric."""
    metric = {test: PRIMARY[task.KINDS[task.load(test).kind].method] for test in items["test"].unique()}
    return items[items["metric"] == items["test"].map(metric)]


def _samples(rows: pd.DataFrame) -> Iterator[Sample]:
    """One sample for each model and test."""
    for found, group in rows.groupby(PAIR_KEYS, sort=True):
        keys = dict(zip(PAIR_KEYS, found, strict=True))
        values = group.pivot(index="seed", columns="id", values="value")
        if values.isna().to_numpy().any():
            raise ValueError(f"the seeds of a model were scored on different rows: {keys}")
        yield Sample(keys, values.to_numpy(dtype=float), tuple(values.columns))


def _reports(rows: pd.DataFrame) -> Iterator[Reported]:
    """One report for each model and test that is a task."""
    known = rows[rows["test"].isin(task.names())]
    for found, group in known.groupby(PAIR_KEYS, sort=True):
        counts = group["n"].dropna()
        n = int(counts.iloc[0]) if len(counts) else None
        values = group["value"].to_numpy(dtype=float)
        yield Reported(
            dict(zip(PAIR_KEYS, found, strict=True)), float(values.mean()), _error(values, group["error"]), n
        )


def _error(values: Values, errors: pd.Series) -> float | None:
    """Standard error of a mean over seeds: that of one seed's rows, which the seeds share, or the seeds' own if larger."""
    between = [float(values.std(ddof=1) / np.sqrt(len(values)))] if len(values) > 1 else []
    return max([*errors.dropna().astype(float), *between], default=None)


def estimate(
    keys: dict[str, Any], value: float, resampled: Values | None, how: Resampling, **rest: Any
) -> dict[str, Any]:
    """A row of `tables.ANALYSIS`: an estimate with the interval of its resamples, none where there are no resamples."""
    low, high = (None, None) if resampled is None else how.bounds(resampled)
    return {**keys, "value": value, "low": low, "high": high, **rest}


def pooled(
    samples: Sequence[Level | Change],
    how: Resampling,
    centre: Callable[[Values, Values], Values] = weighted_mean,
    weights: Sequence[float] | None = None,
) -> tuple[float, Values]:
    """The weighted mean (or another centre) over tests, and its resamples: tests are resampled, rows and seeds within each.

    centre: (values, weights) -> centre along the last axis; weights: one for each test, 1 when left out.
    """
    # Tests have rows of their own, so each is resampled by a seed of its own; a test that is drawn twice is resampled twice.
    within = np.stack([sample.resampled(replace(how, seed=how.seed + 2 + i)) for i, sample in enumerate(samples)])
    own = np.ones(len(samples)) if weights is None else np.asarray(weights, dtype=float)
    generator = np.random.default_rng([how.seed, len(samples)])
    shape = (how.resamples, len(samples))
    tests, resamples = generator.integers(len(samples), size=shape), generator.integers(how.resamples, size=shape)
    value = centre(np.array([sample.value for sample in samples]), own)
    return float(value), centre(within[tests, resamples], own[tests])
