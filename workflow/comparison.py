"""What a study has measured, ready to compare: levels of models on tests, what tuning changes of them, means over several.

A level is known row by row (`Sample`, from a study's own predictions) or as a score with its standard error (`Reported`,
from imported results). Either can be resampled, so analyses need not know which it is.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow import measures
from workflow.statistics import Resampling, p_value, weighted_mean

Values = NDArray[np.float64]
Estimator = Callable[[Values, Values], Values]

PAIR_KEYS = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
PLACE_KEYS = ["family", "step", "suite", "test", "test_format", "shots"]


@dataclass(frozen=True)
class Sample:
    """Values of a model on the rows of a test in the test's primary metric.

    keys: PAIR_KEYS and their values; values: shape (seeds, rows); ids: of the rows, in the order of the columns; metric: its
    name; better: which way it is better, `higher` or `lower`, None for neither.
    """

    keys: dict[str, Any]
    values: Values
    ids: tuple[str, ...] = ()
    metric: str = ""
    better: str | None = "higher"

    @property
    def value(self) -> float:
        """The mean over seeds and rows."""
        return float(self.values.mean())

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.values.shape[1]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return self.values.shape[0]

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

    keys: PAIR_KEYS and their values; error, n (rows): None where not reported; seeds: whose scores are averaged; metric,
    better: its name and which way it is better, as of Sample.
    """

    keys: dict[str, Any]
    value: float
    error: float | None
    n: int | None = None
    seeds: int = 1
    metric: str = ""
    better: str | None = "higher"

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
class Difference:
    """Two levels on the same test, the second taken from the first. keys: those of the first."""

    first: Level
    second: Level

    @property
    def keys(self) -> dict[str, Any]:
        """PAIR_KEYS of the first level."""
        return self.first.keys

    @property
    def pair(self) -> tuple[str, str]:
        """Task tuned on and test."""
        return self.keys["train"], self.keys["test"]

    @property
    def value(self) -> float:
        """First minus second."""
        return self.first.value - self.second.value

    @property
    def n(self) -> int | None:
        """Number of rows."""
        return self.first.n

    @property
    def uncertain(self) -> bool:
        """Whether its uncertainty is known."""
        return self.first.uncertain and self.second.uncertain

    @property
    def aligned(self) -> bool:
        """Whether both are of the same rows, as far as rows are known."""
        levels = (self.first, self.second)
        return len({level.ids for level in levels if isinstance(level, Sample)}) < 2

    def resampled(self, how: Resampling) -> Values:
        """The difference in each resample; row by row where rows are known."""
        return self.first.resampled(how) - self.second.resampled(how)


class Change(Difference):
    """A tuned model beside its own untouched base on the same test, tested in the same way. keys: those of the tuned model."""

    @property
    def tuned(self) -> Level:
        """The tuned model's level."""
        return self.first

    @property
    def base(self) -> Level:
        """The untouched base's level."""
        return self.second


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
        by_row = list(_samples(measures.primary(self.items)))
        there = {tuple(level.keys[key] for key in PAIR_KEYS) for level in by_row}
        reports = _reports(measures.primary(self.reported))
        return [*by_row, *(own for own in reports if tuple(own.keys[key] for key in PAIR_KEYS) not in there)]

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
    if not change.aligned:
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {change.keys}")


def _samples(rows: pd.DataFrame) -> Iterator[Sample]:
    """One sample for each model and test."""
    for found, group in rows.groupby(PAIR_KEYS, sort=True):
        keys = dict(zip(PAIR_KEYS, found, strict=True))
        values = group.pivot(index="seed", columns="id", values="value")
        if values.isna().to_numpy().any():
            raise ValueError(f"the seeds of a model were scored on different rows: {keys}")
        metric = str(group["metric"].iloc[0])
        yield Sample(keys, values.to_numpy(dtype=float), tuple(values.columns), metric, measures.better(metric))


def _reports(rows: pd.DataFrame) -> Iterator[Reported]:
    """One report for each model and test, whether it is a task here or not; a score without a value is none."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows[rows["value"].notna()].to_dict("records"):
        groups.setdefault(tuple(row[key] for key in PAIR_KEYS), []).append(row)
    for found in sorted(groups):
        group = groups[found]
        counts = [int(row["n"]) for row in group if pd.notna(row["n"])]
        values = np.array([row["value"] for row in group], dtype=float)
        errors = [float(row["error"]) for row in group if pd.notna(row["error"])]
        keys, way = dict(zip(PAIR_KEYS, found, strict=True)), group[0].get("better", "higher")
        n = counts[0] if counts else None
        facts = {"metric": group[0]["metric"], "better": None if pd.isna(way) else way}
        yield Reported(keys, float(values.mean()), _error(values, errors), n, len(values), **facts)


def _error(values: Values, errors: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds: that of one seed's rows, which the seeds share, or the seeds' own if larger."""
    between = [float(values.std(ddof=1) / np.sqrt(len(values)))] if len(values) > 1 else []
    return max([*errors, *between], default=None)


class Panel:
    """Changes of pairs of task and test along pre-training, tested in one way: what is pooled over pairs or over steps.

    Each pair that occurs is expected at each step that occurs: where a mean lacks one, its value is null. Estimators are
    name -> function of the changes and of the bases' levels, cells along the last axis; a value that is infinite is null
    as well, and an interval with an infinite resample.
    """

    def __init__(self, changes: Sequence[Difference], how: Resampling) -> None:
        """Resample each change by rows and seeds. changes: one for each pair and step."""
        tests = sorted({change.keys["test"] for change in changes})
        self.how = how
        self.cells = {
            # Tests have rows of their own, so each is resampled by a seed of its own.
            (change.pair, change.keys["step"]): _parts(
                change, replace(how, seed=how.seed + 2 + tests.index(change.keys["test"]))
            )
            for change in changes
        }
        self.pairs = sorted({pair for pair, _ in self.cells})
        self.steps = sorted({step for _, step in self.cells})

    def over_pairs(self, estimators: Mapping[str, Estimator]) -> Iterator[dict[str, Any]]:
        """Rows over all pairs, at all steps (step null) and at each; n counts the pairs that have the steps.

        Pairs are resampled with all their steps, since a claim is about pairs of that sort; rows and seeds within each.
        A single pair says nothing of others: it has no interval.
        """
        for step in (None, *self.steps):
            steps = self.steps if step is None else [step]
            there = [pair for pair in self.pairs if all((pair, step) in self.cells for step in steps)]
            keys = {"step": step, "n": len(there)}
            if there == self.pairs:
                parts = np.array([[self.cells[pair, step] for step in steps] for pair in there])
                drawn = [redrawn(parts[:, :, part, 1:], self.how) for part in (0, 1)]
                yield from self._rows(keys, estimators, parts[..., 0].reshape(-1, 2).T, drawn)
            else:
                yield from ({**keys, "estimator": name, "value": None} for name in estimators)

    def over_steps(self, estimators: Mapping[str, Estimator]) -> Iterator[dict[str, Any]]:
        """Rows for each pair over all steps; n counts the steps that it has.

        Steps and rows are crossed, so steps are resampled as a whole, and rows and seeds alike at all of them.
        """
        for pair in self.pairs:
            there = [step for step in self.steps if (pair, step) in self.cells]
            keys = {"step": None, "train": pair[0], "test": pair[1], "n": len(there)}
            if there == self.steps:
                parts = np.array([self.cells[pair, step] for step in there])
                generator = np.random.default_rng([self.how.seed, len(there)])
                chosen = generator.integers(len(there), size=(self.how.resamples, len(there)))
                drawn = [parts[chosen, part, 1 + np.arange(self.how.resamples)[:, None]] for part in (0, 1)]
                yield from self._rows(keys, estimators, parts[..., 0].T, drawn)
            else:
                yield from ({**keys, "estimator": name, "value": None} for name in estimators)

    def _rows(
        self, keys: dict[str, Any], estimators: Mapping[str, Estimator], parts: Values, drawn: Sequence[Values]
    ) -> Iterator[dict[str, Any]]:
        """One row for each estimator. parts: changes and bases, each (cells,); drawn: the same, each (resamples, cells)."""
        for name, estimator in estimators.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                value, resampled = float(estimator(*parts)), estimator(*drawn)
            row = {**keys, "estimator": name}
            if not np.isfinite(value):
                yield {**row, "value": None}
            elif keys["n"] == 1 or not np.isfinite(resampled).all():
                yield {**row, "value": value}
            else:
                yield estimate(row, value, resampled, self.how, p_value=p_value(resampled))


def _parts(change: Difference, how: Resampling) -> Values:
    """A change and its second level, shape (2, 1 + resamples): the value, then its resamples."""
    level = change.second.resampled(how)
    return np.array([[change.value, *(change.first.resampled(how) - level)], [change.second.value, *level]])


def estimate(
    keys: dict[str, Any], value: float, resampled: Values | None, how: Resampling, **rest: Any
) -> dict[str, Any]:
    """A row of `tables.ANALYSIS`: an estimate with the interval of its resamples, none where there are no resamples."""
    low, high = (None, None) if resampled is None else how.bounds(resampled)
    return {**keys, "value": value, "low": low, "high": high, **rest}


def pooled(
    samples: Sequence[Level | Difference],
    how: Resampling,
    centre: Callable[[Values, Values], Values] = weighted_mean,
    weights: Sequence[float] | None = None,
) -> tuple[float, Values]:
    """The weighted mean (or another centre) over tests, and its resamples: tests are resampled, rows and seeds within each.

    centre: (values, weights) -> centre along the last axis; weights: one for each test, 1 when left out.
    """
    # Tests have rows of their own, so each is resampled by a seed of its own.
    within = np.stack([sample.resampled(replace(how, seed=how.seed + 2 + i)) for i, sample in enumerate(samples)])
    own = np.ones(len(samples)) if weights is None else np.asarray(weights, dtype=float)
    repeated = np.broadcast_to(own[:, None, None], (len(samples), 1, how.resamples))
    value = centre(np.array([sample.value for sample in samples]), own)
    return float(value), centre(redrawn(within[:, None, :], how), redrawn(repeated, how))


def redrawn(draws: Values, how: Resampling) -> Values:
    """Clusters of cells, drawn anew for each resample with all their cells; a cluster drawn twice is resampled twice.

    draws: resamples of each cell, shape (clusters, cells, resamples). Returns shape (resamples, clusters * cells); clusters
    are drawn by `how` alone, so two arrays of one shape are drawn alike.
    """
    generator = np.random.default_rng([how.seed, len(draws)])
    shape = (how.resamples, len(draws))
    clusters, resamples = generator.integers(len(draws), size=shape), generator.integers(how.resamples, size=shape)
    return draws[clusters, :, resamples].reshape(how.resamples, -1)


def places(differences: Sequence[Difference], keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Difference]]]:
    """Differences grouped by keys, and by recipe where some task was tuned on by several.

    The recipe is None where each task was tuned on by one recipe, not all by the same. Otherwise, a task tuned on by a
    single recipe stands beside each of the others' recipes.
    """

    def place(difference: Difference) -> tuple[Any, ...]:
        return tuple(difference.keys[key] for key in keys)

    for found, grouped in itertools.groupby(sorted(differences, key=place), key=place):
        there = list(grouped)
        recipes: dict[str, set[str]] = {}
        for difference in there:
            recipes.setdefault(difference.keys["train"], set()).add(difference.keys["recipe"])
        varied = sorted({name for names in recipes.values() if len(names) > 1 for name in names})
        single = {name for names in recipes.values() for name in names}
        for recipe in varied or [single.pop() if len(single) == 1 else None]:
            own = [d for d in there if d.keys["recipe"] == recipe or len(recipes[d.keys["train"]]) == 1]
            yield {**dict(zip(keys, found, strict=True)), "recipe": recipe}, own
