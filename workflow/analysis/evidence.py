"""The scores of a study in a form that analyses compare: levels of models on tests, changes by fine-tuning, means over
several.

A level is known row by row (`Sample`, from a study's predictions) or as a score with its standard error (`Reported`, from
released results). Both have confidence margins and can be resampled, so analyses need not distinguish them. A single level
or difference has an interval in closed form (`statistics.Margins`) from its rows, and from the variance between seeds if the
study has several seeds of a fine-tuning (`seed_variance`). A mean over tests or pairs has Student's interval, with one
degree of freedom less than their number; it is never narrower than the noise of their rows.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.analysis import scored_rows, seed_variance
from workflow.analysis.seed_variance import Luck
from workflow.evaluation import metric_names
from workflow.statistics import (
    NORMAL,
    SCORES,
    UNLIMITED,
    Limits,
    Margins,
    Resampling,
    apart,
    bounded,
    correlation,
    effective_n,
    ends,
    larger,
    limits_apart,
    normal,
    share,
    tested,
    together,
    weighted_mean,
)

Values = NDArray[np.float64]
Estimator = Callable[[Values, Values], Values]

PAIR_KEYS = ["family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
PLACE_KEYS = ["family", "step", "suite", "test", "test_format", "shots"]
TUNING_KEYS = ["train", "format", "recipe"]
EVERY_DRAW = 4096  # for five units and fewer
MODEL_KEYS = ["family", "step", *TUNING_KEYS]
LUCK_KEYS = [
    *TUNING_KEYS,
    "suite",
    "test",
    "test_format",
    "shots",
]  # keys of levels that share their variance between seeds: all bases


@dataclass(frozen=True)
class Sample:
    """Scores of a model on the rows of a test in the test's primary metric.

    keys: PAIR_KEYS and their values; values: shape (seeds, rows); ids: names of the rows, in the order of the columns;
    metric: name of the metric; better: `higher` or `lower` values are better, None for neither; luck: the variance between
    seeds of such a fine-tuning, None for an untouched base and if no fine-tuning of the study has two seeds.
    """

    keys: dict[str, Any]
    values: Values
    ids: tuple[str, ...] = ()
    metric: str = ""
    better: str | None = "higher"
    luck: Luck | None = None

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
        """Whether the uncertainty is known."""
        return True

    @property
    def lucky(self) -> bool:
        """Whether the variance between seeds is known, or irrelevant because nothing was fine-tuned."""
        return self.luck is not None or not _tuned(self.keys)

    @property
    def over_rows(self) -> Margins:
        """Margins by the scored rows, with seeds fixed."""
        rows = self.values.mean(axis=0)
        return bounded(rows) if self.bounded else _of_rows(rows)

    @property
    def bounded(self) -> bool:
        """Whether all values lie between 0 and 1, as those of a share do; a loss can too."""
        return self.better != "lower" and bool(self.values.min() >= 0 and self.values.max() <= 1)

    @property
    def over_seeds(self) -> list[Margins]:
        """Margins by the variance between seeds; none if it is unknown."""
        return [self.luck.margins(self.seeds)] if self.luck else []

    @property
    def limits(self) -> Limits:
        """The values that the mean can have."""
        return SCORES if self.bounded else UNLIMITED

    @property
    def margins(self) -> Margins:
        """Margins by rows and seeds."""
        return together(self.over_rows, *self.over_seeds)

    def resampled(self, resampling: Resampling) -> Values:
        """Means over resampled rows, and over resampled seeds if there are several: one for each resample.

        Seeds and rows are crossed, so both are resampled as a whole (the "pigeonhole" bootstrap, Owen 2007). Samples on the
        same rows are resampled together, so their difference is a paired comparison.
        """
        seeds, rows = self.values.shape
        seed_weights = np.concatenate(list(replace(resampling, seed=resampling.seed + 1).weights(seeds)))
        by_row = np.concatenate([weights @ self.values.T for weights in resampling.weights(rows)])
        return np.einsum("bs,bs->b", seed_weights, by_row) / (seeds * rows)


@dataclass(frozen=True)
class Reported:
    """A released score with its standard error, averaged over seeds; rows are unknown.

    keys: PAIR_KEYS and their values; error, n (rows): None if not reported; seeds: number of averaged seeds; metric, better:
    as in Sample.
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
        """Whether the uncertainty is known. An error of 0 is informative only for a share of a known number of rows."""
        return self.error is not None and (self.error > 0 or (self._share and self.n is not None))

    @property
    def _share(self) -> bool:
        """Whether it is the score of a single seed, between 0 and 1, for which more is better."""
        return self.seeds == 1 and self.better == "higher" and 0 <= self.value <= 1

    @property
    def lucky(self) -> bool:
        """Whether the error includes the variance between seeds, or there is none because nothing was fine-tuned."""
        return self.seeds > 1 or not _tuned(self.keys)

    @property
    def over_rows(self) -> Margins:
        """Margins from the error; for a share those of a share, with the number of rows that the error implies."""
        error = self.error or 0.0
        if not self._share:
            return normal(error, self.seeds - 1 if self.seeds > 1 else NORMAL)
        return share(self.value, effective_n(self.value, error**2) if error or not self.n else self.n)

    values: ClassVar[None] = None
    bounded: ClassVar[bool] = True
    over_seeds: ClassVar[list[Margins]] = []

    @property
    def limits(self) -> Limits:
        """The possible values: 0 to 1 if the score is between them and more is better."""
        return SCORES if self.better == "higher" and 0 <= self.value <= 1 else UNLIMITED

    @property
    def margins(self) -> Margins:
        """Margins of its error."""
        return self.over_rows

    def resampled(self, resampling: Resampling) -> Values:
        """Draws from a normal distribution around the score, independent of other scores; without an error the score itself."""
        key_hash = zlib.crc32(json.dumps([str(self.keys[key]) for key in PAIR_KEYS]).encode())
        return np.random.default_rng([resampling.seed, key_hash]).normal(
            self.value, self.error or 0.0, resampling.resamples
        )


Level = Sample | Reported


@dataclass(frozen=True)
class Difference:
    """First minus second of two levels on the same test.

    keys: those of the first. luck: the variance between seeds of the difference itself if both levels are of one model;
    otherwise None, and if it is unknown.
    """

    first: Level | Difference
    second: Level | Difference
    luck: Luck | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """PAIR_KEYS of the first level."""
        return self.first.keys

    @property
    def pair(self) -> tuple[str, str]:
        """Fine-tuning task and test."""
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
        """Whether both levels have the same rows, as far as rows are known."""
        levels = (self.first, self.second)
        return len({level.ids for level in levels if isinstance(level, Sample)}) < 2

    @property
    def alike(self) -> bool:
        """Whether both levels are of one model and therefore share its seed variance."""
        return all(self.first.keys.get(key) == self.second.keys.get(key) for key in MODEL_KEYS)

    @property
    def lucky(self) -> bool:
        """Whether the variance between seeds is known for both sides."""
        if self.alike and _tuned(self.first.keys):
            return self.luck is not None
        return self.first.lucky and self.second.lucky

    @property
    def values(self) -> Values | None:
        """Differences by seed and row, shape (seeds, rows), if both sides have the same rows and as many seeds; otherwise
        None.
        """
        first, second = self.first.values, self.second.values
        if first is None or second is None or first.shape != second.shape:
            return None
        return first - second

    bounded: ClassVar[bool] = False

    @property
    def limits(self) -> Limits:
        """The values that it can have."""
        return limits_apart(self.first.limits, self.second.limits)

    @property
    def over_rows(self) -> Margins:
        """Margins of the scored rows: paired where rows are known."""
        values = self.values
        if values is not None and not all(side.bounded for side in (self.first, self.second)):
            return _of_rows(values.mean(axis=0))
        return apart(self.first.over_rows, self.second.over_rows, self.correlation)

    @property
    def correlation(self) -> float:
        """Correlation of both sides over rows; 0 if they are unknown."""
        first, second = self.first.values, self.second.values
        if first is None or second is None or first.shape[1] != second.shape[1]:
            return 0.0
        return correlation(first.mean(axis=0), second.mean(axis=0))

    @property
    def over_seeds(self) -> list[Margins]:
        """Margins by the variance between seeds; none if it is unknown."""
        if self.alike:
            return [self.luck.margins(cast("Level", self.first).seeds)] if self.luck else []
        return [*self.first.over_seeds, *self.second.over_seeds]

    @property
    def margins(self) -> Margins:
        """Margins by rows and seeds."""
        return together(self.over_rows, *self.over_seeds)

    def resampled(self, resampling: Resampling) -> Values:
        """The difference in each resample; row by row where rows are known."""
        return self.first.resampled(resampling) - self.second.resampled(resampling)


class Change(Difference):
    """A fine-tuned model and its untouched base on the same test, tested in the same way.

    keys: those of the fine-tuned model.
    """

    @property
    def tuned(self) -> Level:
        """The level of the fine-tuned model."""
        return cast("Level", self.first)

    @property
    def base(self) -> Level:
        """The level of the untouched base."""
        return cast("Level", self.second)


@dataclass(frozen=True)
class Evidence:
    """All measured and released scores of a study.

    items: rows of `tables.ITEMS` with the keys of their cells, or their file; reported: rows of `tables.SCORES`, likewise;
    left_out: families without levels.
    """

    items: scored_rows.Items
    reported: pd.DataFrame
    left_out: frozenset[str] = frozenset()

    @cached_property
    def levels(self) -> list[Level]:
        """The level of each model on each test, seeds together; untouched bases are among the models (train `none`).

        Errors: ValueError if a seed lacks rows that another has.
        """
        by_row = [one for one in seeded(list(_samples(self.items))) if one.keys["family"] not in self.left_out]
        measured = {tuple(level.keys[key] for key in PAIR_KEYS) for level in by_row}
        reports = _reports(metric_names.primary(self.reported))
        return [
            *by_row,
            *(report for report in reports if tuple(report.keys[key] for key in PAIR_KEYS) not in measured),
        ]

    def chances(self, keys: Sequence[str]) -> dict[tuple[Any, ...], float]:
        """Accuracy of a uniform guess by the choices of the scored rows: the mean over all rows with these keys."""
        values_by_key: dict[tuple[Any, ...], list[Values]] = {}
        for run in scored_rows.runs(self.items, lambda run_keys: run_keys["metric"] == "chance"):
            values_by_key.setdefault(tuple(run.keys[key] for key in keys), []).append(run.values)
        return {
            group_keys: float(pd.Series(np.concatenate(values)).mean()) for group_keys, values in values_by_key.items()
        }

    @cached_property
    def changes(self) -> list[Change]:
        """Each fine-tuned model with its base on each test. A reported model without its base has no change.

        Errors: ValueError if a base was not scored on the rows of its fine-tuned model.
        """
        bases = {_place(level): level for level in self.levels if level.keys["recipe"] == "none"}
        tuned = [level for level in self.levels if level.keys["recipe"] != "none"]
        pairs = [Change(level, bases[_place(level)]) for level in tuned if _place(level) in bases or _needed(level)]
        for pair in pairs:
            _check_rows(pair)
        return pairs


def _of_rows(values: Values) -> Margins:
    """Student's margins of a mean over rows, shape (n,)."""
    freedom = max(1, len(values) - 1)
    return normal(float(values.std() / freedom**0.5), freedom)


def _tuned(keys: Mapping[str, Any]) -> bool:
    """Whether keys are of a fine-tuned model."""
    return keys.get("recipe", "none") != "none"


Seeded = TypeVar("Seeded", Sample, Difference)


def seeded(levels: Sequence[Seeded]) -> list[Seeded]:
    """Levels of fine-tuned models, or differences within a model, with the variance between their seeds, pooled over all
    bases.

    If no base has two seeds of a fine-tuning, the variance of all tests of its recipe and suite is used; None if they have
    none.
    """
    narrow, wide = (_pooled(levels, keys) for keys in (LUCK_KEYS, ["recipe", "suite"]))
    result = []
    for level in levels:
        tuned = _tuned(level.keys) and level.values is not None
        pools = (pool.get(tuple(level.keys[key] for key in keys)) for pool, keys in (narrow, wide)) if tuned else ()
        result.append(replace(level, luck=next((pool for pool in pools if pool), None)))
    return result


def _pooled(levels: Sequence[Any], keys: Sequence[str]) -> tuple[dict[tuple[Any, ...], Luck | None], Sequence[str]]:
    """The variance between seeds of fine-tuned levels, grouped by some of their keys."""
    groups: dict[tuple[Any, ...], list[list[Values]]] = {}
    for level in levels:
        if _tuned(level.keys) and level.values is not None:
            groups.setdefault(tuple(level.keys[key] for key in keys), []).append([level.values])
    return {group_keys: seed_variance.pooled(bases, 1) for group_keys, bases in groups.items()}, keys


def _place(level: Level) -> tuple[Any, ...]:
    """Base and way of testing of a level: the keys that a base shares with the models fine-tuned from it."""
    return tuple(level.keys[key] for key in PLACE_KEYS)


def _needed(level: Level) -> bool:
    """Raise ValueError for a sample without a base; a reported level may lack one."""
    if isinstance(level, Sample):
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {level.keys}")
    return False


def _check_rows(change: Change) -> None:
    """Raise ValueError unless base and fine-tuned model were scored on the same rows, as far as rows are known."""
    if not change.aligned:
        raise ValueError(f"the untouched base lacks rows that its tuned model was scored on: {change.keys}")


def _samples(items: scored_rows.Items) -> Iterator[Sample]:
    """One sample for each model and test, in its primary metric."""
    main = scored_rows.primary(items)
    groups: dict[tuple[Any, ...], dict[int, list[scored_rows.Run]]] = {}
    for run in scored_rows.runs(
        items, lambda seed_rows: tuple(seed_rows[key] for key in scored_rows.METRIC_KEYS) in main
    ):
        seeds = groups.setdefault(tuple(run.keys[key] for key in PAIR_KEYS), {})
        seeds.setdefault(run.keys["seed"], []).append(run)
    ordered = lru_cache(maxsize=1024)(_ordered)  # models have the rows of a test in common
    for group_keys in sorted(groups):
        seeds, keys = groups.pop(group_keys), dict(zip(PAIR_KEYS, group_keys, strict=True))
        metric = next(iter(seeds.values()))[0].keys["metric"]
        seed_rows = [_whole(seeds[seed], ordered) for seed in sorted(seeds)]
        if len({ids for ids, _ in seed_rows}) > 1 or any(np.isnan(values).any() for _, values in seed_rows):
            raise ValueError(f"the seeds of a model were scored on different rows: {keys}")
        values = np.array([values for _, values in seed_rows])
        yield Sample(keys, values, seed_rows[0][0], metric, metric_names.better(metric))


def _whole(runs: Sequence[scored_rows.Run], ordered: Callable[..., tuple[Any, Any]]) -> tuple[tuple[str, ...], Values]:
    """Names and values of one seed's rows on a test, ordered by name, from one or several runs."""
    ids, order = ordered(tuple(name for run in runs for name in run.ids))
    return ids, np.concatenate([run.values for run in runs])[order]


def _ordered(ids: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of rows in order, and their original indices.

    Errors: ValueError for a name that occurs twice.
    """
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    if len(set(ids)) < len(ids):
        raise ValueError("a model was scored twice on one row of a test")
    return tuple(ids[index] for index in order), order


def _reports(rows: pd.DataFrame) -> Iterator[Reported]:
    """One report for each model and test, whether it is a task here or not; scores without a value are left out."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows[rows["value"].notna()].to_dict("records"):
        groups.setdefault(tuple(row[key] for key in PAIR_KEYS), []).append(row)
    for group_keys in sorted(groups):
        group = groups[group_keys]
        counts = [int(row["n"]) for row in group if pd.notna(row["n"])]
        values = np.array([row["value"] for row in group], dtype=float)
        errors = [float(row["error"]) for row in group if pd.notna(row["error"])]
        keys, way = dict(zip(PAIR_KEYS, group_keys, strict=True)), group[0].get("better", "higher")
        n = counts[0] if counts else None
        facts = {"metric": group[0]["metric"], "better": None if pd.isna(way) else way}
        yield Reported(keys, float(values.mean()), _error(values, errors), n, len(values), **facts)


def _error(values: Values, errors: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds: that of one seed's rows, which the seeds share, or that of the seeds if larger."""
    between = [float(values.std(ddof=1) / np.sqrt(len(values)))] if len(values) > 1 else []
    return max([*errors, *between], default=None)


class Panel:
    """Changes of pairs of fine-tuning task and test along pre-training, tested in one way, for pooling over pairs or steps.

    Each pair is expected at each step. A mean that lacks one is null. Estimators are name -> function of the changes and of
    the bases' levels, cells along the last axis. An infinite value is null, and so is an interval with an infinite resample.
    """

    def __init__(self, changes: Sequence[Difference], resampling: Resampling, relative: Collection[str] = ()) -> None:
        """Resample each change by rows and seeds.

        changes: one for each pair and step; relative: the estimators that are shares of the base's level, which are at least
        -1 if no level is below 0.
        """
        self.limits, self.relative = common_limits(changes), relative
        tests = sorted({change.keys["test"] for change in changes})
        self.resampling = resampling
        self.cells = {
            # Tests have different rows, so each test has its own seed.
            (change.pair, change.keys["step"]): _parts(
                change, replace(resampling, seed=resampling.seed + 2 + tests.index(change.keys["test"]))
            )
            for change in changes
        }
        self.pairs = sorted({pair for pair, _ in self.cells})
        self.steps = sorted({step for _, step in self.cells})

    def over_pairs(self, estimators: Mapping[str, Estimator]) -> Iterator[dict[str, Any]]:
        """Rows over all pairs, at all steps (step null) and at each; n is the number of pairs that have the steps.

        The interval is over pairs with all their steps, because the claim is about pairs of that sort. A single pair has no
        interval.
        """
        for step in (None, *self.steps):
            steps = self.steps if step is None else [step]
            pairs = [pair for pair in self.pairs if all((pair, step) in self.cells for step in steps)]
            keys = {"step": step, "n": len(pairs)}
            if pairs == self.pairs:
                parts = np.array([[self.cells[pair, step] for step in steps] for pair in pairs])
                chosen = _chosen(len(pairs), self.resampling)
                between = [parts[chosen, :, part, 0].reshape(len(chosen), -1) for part in (0, 1)]
                within = [parts[:, :, part, 1:].reshape(-1, self.resampling.resamples).T for part in (0, 1)]
                yield from self._rows(keys, estimators, parts[..., 0].reshape(-1, 2).T, between, within, larger)
            else:
                yield from ({**keys, "estimator": name, "value": None} for name in estimators)

    def over_steps(self, estimators: Mapping[str, Estimator]) -> Iterator[dict[str, Any]]:
        """Rows for each pair over all steps; n is the number of its steps.

        Steps share their rows, so the noise of rows is added to the scatter of steps.
        """
        for pair in self.pairs:
            steps = [step for step in self.steps if (pair, step) in self.cells]
            keys = {"step": None, "train": pair[0], "test": pair[1], "n": len(steps)}
            if steps == self.steps:
                parts = np.array([self.cells[pair, step] for step in steps])
                between = [parts[_chosen(len(steps), self.resampling), part, 0] for part in (0, 1)]
                within = [parts[:, part, 1:].T for part in (0, 1)]
                yield from self._rows(keys, estimators, parts[..., 0].T, between, within, together)
            else:
                yield from ({**keys, "estimator": name, "value": None} for name in estimators)

    def _rows(
        self,
        keys: dict[str, Any],
        estimators: Mapping[str, Estimator],
        parts: Values,
        between: Sequence[Values],
        within: Sequence[Values],
        join: Callable[..., Margins],
    ) -> Iterator[dict[str, Any]]:
        """One row for each estimator.

        parts: changes and bases, each (cells,); between, within: the same, each (resamples, cells), with resampled units, or
        with all units and resampled rows; join: of both margins.
        """
        for name, estimator in estimators.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                value, drawn = float(estimator(*parts)), [estimator(*between), estimator(*within)]
            row = {**keys, "estimator": name}
            if not np.isfinite(value):
                yield {**row, "value": None}
            elif keys["n"] == 1 or not all(np.isfinite(resamples).all() for resamples in drawn):
                yield {**row, "value": value}
            else:
                yield estimated(
                    row, value, spread(drawn[0], drawn[1], keys["n"], join), self.resampling.level, self._limits(name)
                )

    def _limits(self, name: str) -> Limits:
        """The values that an estimator can have."""
        if name not in self.relative:
            return self.limits
        return (-1.0, np.inf) if np.isfinite(self.limits).all() else UNLIMITED


def _parts(change: Difference, resampling: Resampling) -> Values:
    """A change and its second level, shape (2, 1 + resamples): the value, then its resamples."""
    level = change.second.resampled(resampling)
    return np.array([[change.value, *(change.first.resampled(resampling) - level)], [change.second.value, *level]])


def estimate(keys: dict[str, Any], point: Level | Difference, level: float, **rest: Any) -> dict[str, Any]:
    """A row of `tables.ANALYSIS` about one level or difference, with an interval if its uncertainty is known.

    A difference also has a p-value, from the same margins.
    """
    known = {"value": point.value, "low": None, "high": None, "seed_variance": _seed_variance([point])}
    if point.uncertain:
        margins = point.margins
        known["low"], known["high"] = ends(point.value, margins, level, point.limits)
        known |= {"p_value": tested(point.value, margins)} if isinstance(point, Difference) else {}
    return {**keys, **known, **rest}


def _seed_variance(points: Sequence[Level | Difference]) -> bool | None:
    """Whether intervals include the variance between seeds; None if nothing was fine-tuned."""
    sides = [side for one in points for side in ((one.first, one.second) if isinstance(one, Difference) else (one,))]
    return all(one.lucky for one in points) if any(_tuned(side.keys) for side in sides) else None


def estimated(
    keys: dict[str, Any], value: float, margins: Margins, level: float, limits: Limits = UNLIMITED, **rest: Any
) -> dict[str, Any]:
    """A row of `tables.ANALYSIS` with the interval and the p-value of its margins."""
    low, high = ends(value, margins, level, limits)
    return {**keys, "value": value, "low": low, "high": high, "p_value": tested(value, margins), **rest}


def spread(between: Values, within: Values, n: int, join: Callable[..., Margins] = larger) -> Margins:
    """Margins of a mean (or another centre) over n units, at least two tests, pairs or steps.

    between: its resamples, shape (resamples,), over units: Student's t with n - 1 degrees of freedom and this spread,
    multiplied by n / (n - 1) in variance, because units drawn with replacement spread less than new units; within: resamples
    of rows and seeds with all units; join: of both, `larger` if the spread of units includes the noise of their rows,
    `together` if units share that noise.
    """
    return join(normal(float(between.std()) * (n / (n - 1)) ** 0.5, n - 1), normal(float(within.std())))


def pooled(
    samples: Sequence[Level | Difference],
    resampling: Resampling,
    centre: Callable[[Values, Values], Values] = weighted_mean,
    weights: Sequence[float] | None = None,
) -> tuple[float, Values, Values]:
    """The weighted mean (or another centre) over tests, its resamples over tests, and over rows and seeds of all tests.

    centre: (values, weights) -> centre along the last axis; weights: one for each test, by default 1.
    """
    # Tests have different rows, so each test has its own seed.
    within = np.stack(
        [sample.resampled(replace(resampling, seed=resampling.seed + 2 + i)) for i, sample in enumerate(samples)]
    )
    test_weights = np.ones(len(samples)) if weights is None else np.asarray(weights, dtype=float)
    values, chosen = np.array([sample.value for sample in samples]), _chosen(len(samples), resampling)
    return (
        float(centre(values, test_weights)),
        centre(values[chosen], test_weights[chosen]),
        centre(within.T, test_weights),
    )


def _chosen(n: int, resampling: Resampling) -> NDArray[np.int64]:
    """Units drawn with replacement for each resample, shape (resamples, n); for few units every possible draw once."""
    if n**n <= EVERY_DRAW:
        return np.array(list(itertools.product(range(n), repeat=n)))
    return np.random.default_rng([resampling.seed, n]).integers(n, size=(resampling.resamples, n))


def mean_over(
    keys: dict[str, Any],
    differences: Sequence[Difference],
    resampling: Resampling,
    centre: Callable[[Values, Values], Values] = weighted_mean,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A row of `tables.ANALYSIS` about the centre of differences over tests. A single test without an error has no interval."""
    if len(differences) == 1:
        return estimate(keys, differences[0], resampling.level)
    known: dict[str, Any] = {"seed_variance": _seed_variance(differences)}
    limits = common_limits(differences)
    return estimated(keys, *centred(differences, resampling, centre, weights), resampling.level, limits, **known)


def common_limits(points: Sequence[Level | Difference]) -> Limits:
    """The values that a mean or median of levels or differences can have."""
    lows, highs = zip(*(one.limits for one in points), strict=True)
    return min(lows), max(highs)


def centred(
    differences: Sequence[Difference],
    resampling: Resampling,
    centre: Callable[[Values, Values], Values] = weighted_mean,
    weights: Sequence[float] | None = None,
) -> tuple[float, Margins]:
    """The centre of differences over tests (`pooled`) with its margins; for a single test its own margins.

    The seed variance of a model that was tested several times is common to its tests, so it is added to their spread. The
    variance between different fine-tunings is part of that spread.
    """
    if len(differences) == 1:
        return differences[0].value, differences[0].margins
    value, between, within = pooled(differences, resampling, centre, weights)
    row_margins = larger(spread(between, within, len(differences)), _mean_rows(differences, weights))
    return value, together(row_margins, *_shared(differences, weights))


def _mean_rows(differences: Sequence[Difference], weights: Sequence[float] | None) -> Margins:
    """Margins of a mean over tests by their rows. Resamples of identical rows have no spread."""
    parts = np.ones(len(differences)) if weights is None else np.asarray(weights, dtype=float)
    known = [
        _summed([(float(part), difference.over_rows)])
        for difference, part in zip(differences, parts / parts.sum(), strict=True)
        if difference.uncertain
    ]
    return together(*known) if known else normal(0.0)


def _shared(differences: Sequence[Difference], weights: Sequence[float] | None) -> list[Margins]:
    """Margins of the seed variance that tests of one fine-tuned model share, as if it moved all of them alike."""
    parts = np.ones(len(differences)) if weights is None else np.asarray(weights, dtype=float)
    parts = parts / parts.sum()
    models: dict[tuple[Any, ...], list[tuple[float, Margins]]] = {}
    for difference, part in zip(differences, parts, strict=True):
        if difference.over_seeds:
            model = tuple(difference.keys[key] for key in MODEL_KEYS)
            models.setdefault(model, []).append((float(part), together(*difference.over_seeds)))
    return [_summed(members) for members in models.values() if len(members) > 1]


def _summed(parts: Sequence[tuple[float, Margins]]) -> Margins:
    """Margins of a weighted sum of parts that move together. parts: weight, margins."""

    def margins(level: float) -> tuple[float, float]:
        ends = [
            (part * below, part * above) for part, margins_of_part in parts for below, above in [margins_of_part(level)]
        ]
        below, above = zip(*ends, strict=True)
        return sum(below), sum(above)

    return margins


def places(differences: Sequence[Difference], keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Difference]]]:
    """Differences grouped by keys, and by recipe if some task was fine-tuned with several.

    The recipe is None if each task has one recipe, not all the same. Otherwise, a task with a single recipe joins the groups
    of each other recipe.
    """

    def group_of(difference: Difference) -> tuple[Any, ...]:
        return tuple(difference.keys[key] for key in keys)

    for group_keys, grouped in itertools.groupby(sorted(differences, key=group_of), key=group_of):
        members_of_group = list(grouped)
        recipes: dict[str, set[str]] = {}
        for difference in members_of_group:
            recipes.setdefault(difference.keys["train"], set()).add(difference.keys["recipe"])
        varied: list[str | None] = [*sorted({name for names in recipes.values() if len(names) > 1 for name in names})]
        single = {name for names in recipes.values() for name in names}
        for recipe in varied or [single.pop() if len(single) == 1 else None]:
            members = [d for d in members_of_group if d.keys["recipe"] == recipe or len(recipes[d.keys["train"]]) == 1]
            yield {**dict(zip(keys, group_keys, strict=True)), "recipe": recipe}, members
