"""Pairwise accuracy of each forecaster by split, subset and tie rule, with intervals over bases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting import forecasters, ranking, splits
from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.forecasters import CHANCE, CONFIG, Forecast
from workflow.forecasting.pairs import (
    TIES,
    contrasts,
    credit,
    differences,
    first_second,
    gaps,
    matched,
    resampled_weights,
)
from workflow.settings import CohortTable
from workflow.statistics import (
    NORMAL,
    ROUNDING,
    Resampling,
    ends,
    normal,
    normal_width,
    student_tail,
    student_width,
    tested,
)
from workflow.storage.tables import FORECASTS

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

MEASURED = ("indicator", "combination")
ENOUGH = 8  # units: with fewer, resamples repeat each other and intervals are too narrow to be reported


@dataclass(frozen=True)
class SplitSetting:
    """Data shared by all rows of a split.

    asked: pairs to forecast in each round, shape (rounds, pairs); weights: of pairs in resamples of bases, shape (resamples,
    pairs); random: preferences of random orders, shape (orders, pairs); chosen: combinations chosen on the targets.
    """

    cohort: Cohort
    asked: Mask
    weights: Values
    random: Values
    resampling: Resampling
    chosen: frozenset[str] = frozenset()

    def candidate(self, forecast: Forecast) -> bool:
        """Return whether a forecaster is a candidate for the best one: an indicator, or a combination that was not chosen on
        the targets on which it is evaluated."""
        return forecast.kind in MEASURED and forecast.forecaster.partition(":")[2] not in self.chosen


def forecast(
    cohort: Cohort,
    block: CohortTable,
    split: str,
    resampling: Resampling,
    report: Callable[[int, int], None],
) -> dict[str, list[dict[str, Any]]]:
    """Return rows of the tables `forecasts`, `rankings` and `importance` for one split.

    block: the cohort's settings; report: called with the numbers of fitted targets and of all targets.
    """
    rounds = splits.rounds(cohort, split)
    tables: dict[str, list[dict[str, Any]]] = {"forecasts": [], "rankings": [], "importance": []}
    if not rounds:
        return tables
    asked = splits.asked(rounds)
    forecasts = forecasters.unfitted(cohort, block["combinations"], len(rounds))
    for number, source in enumerate(cohort.targets, start=1):
        fitted, importance = forecasters.fitted(cohort, source, rounds)
        forecasts += fitted
        tables["importance"] += _importance(cohort, source, importance, resampling)
        report(number, len(cohort.targets))
    setting_of_split = replace(setting(cohort, asked, resampling), chosen=frozenset(block.get("chosen_on_targets", ())))
    for target in cohort.targets:
        masks = subsets(cohort, target, split, block["contrasts"])
        tables["forecasts"] += evaluate(forecasts, target, masks, setting_of_split)
        tables["rankings"] += ranking.evaluate(forecasts, target, cohort, asked, resampling)
    return tables


def _importance(
    cohort: Cohort, source: str, importance: Mapping[str, Values], resampling: Resampling
) -> Iterator[dict[str, Any]]:
    """Yield rows of `tables.IMPORTANCE`; importance: by forecaster, shape (fits, columns)."""
    columns = {"lightgbm": cohort.indicators, forecasters.BOTH: [*cohort.fields, *cohort.indicators]}
    for name, shares in importance.items():
        for column, column_shares in zip(columns[name], shares.T, strict=True):
            low, high = resampling.bounds(column_shares)
            figures = {
                "value": float(column_shares.mean()),
                "sd": float(column_shares.std(ddof=1)),
                "low": low,
                "high": high,
                "n": len(column_shares),
            }
            yield {"forecaster": name, "source": source, "column": column} | figures


def setting(cohort: Cohort, asked: Mask, resampling: Resampling) -> SplitSetting:
    """Return the setting of a split with its resamples."""
    random = forecasters.chance(len(cohort.rows), resampling.seed)
    return SplitSetting(cohort, asked, resampled_weights(cohort.units, resampling), random, resampling)


def subsets(cohort: Cohort, target: str, split: str, contrasted: Sequence[Sequence[str]]) -> dict[str, Mask]:
    """Return the subsets of pairs for which a split reports accuracy: name -> pairs.

    `all` in every split; by gap and by config in `every_pair` and `random`; by contrast in `every_pair`.
    """
    difference = differences(cohort.values([target])[:, 0])
    masks = {"all": np.ones(len(difference), dtype=bool)}
    if split in ("every_pair", "random"):
        masks |= gaps(difference) | matched(cohort)
    if split == "every_pair":
        for fields in contrasted:
            masks |= contrasts(cohort, fields)
    return masks


def evaluate(
    forecasts: Sequence[Forecast], target: str, masks: Mapping[str, Mask], setting: SplitSetting
) -> Iterator[dict[str, Any]]:
    """Yield rows of `tables.FORECASTS` for one target: every forecaster and chance, every subset, every tie rule.

    A pair counts once for each round that includes it. sd is the standard deviation of the accuracy over rounds. The interval
    is over resampled bases with the forecasters as fitted, and null below ENOUGH units. For indicators and combinations, the
    joint intervals hold simultaneously, so they also hold for the best, and the p-values are corrected in the same way
    (`_jointly`). gain is the accuracy minus that of `config` fitted on the same target; lead is the accuracy minus that of the
    best single indicator on the same pairs. For `chance` the interval contains the random orders.
    """
    difference = differences(setting.cohort.values([target])[:, 0])
    preferences = np.array([forecast.preferences for forecast in forecasts])
    rival = next(
        (n for n, facts in enumerate(forecasts) if facts.forecaster == CONFIG and facts.source == target), None
    )
    for ties in TIES:
        earned, counted = credit(preferences, difference, ties)
        lucky, _ = credit(setting.random, difference, ties)
        for subset, mask in masks.items():
            asked = setting.asked & counted & mask
            times = asked.sum(axis=0)
            if times.any():
                sizes = _sizes(setting.cohort, times > 0)
                keys = {"target": target, "subset": subset, "ties": ties, **sizes}
                yield keys | {"forecaster": CHANCE, "kind": CHANCE} | _spread(lucky, times, setting.resampling)
                reference = Reference(
                    np.array([setting.candidate(forecast) for forecast in forecasts]),
                    np.array([forecast.kind == "indicator" for forecast in forecasts]),
                    rival,
                    sizes["n_bases"],
                )
                for forecast, figures in zip(forecasts, _figures(earned, asked, reference, setting), strict=True):
                    facts: dict[str, Any] = {
                        "forecaster": forecast.forecaster,
                        "kind": forecast.kind,
                        "source": forecast.source,
                    }
                    facts |= {"chosen_on_targets": forecast.forecaster.partition(":")[2] in setting.chosen}
                    yield keys | facts | (figures if sizes["n_bases"] >= ENOUGH else figures | UNKNOWN)


NO_ENDS: dict[str, float | None] = {"low": None, "high": None}
UNKNOWN = {name: None for name in FORECASTS.names if name.endswith(("low", "high", "p_value"))}


def _sizes(cohort: Cohort, pairs: Mask) -> dict[str, int]:
    """Return the numbers of pairs and of units of their bases."""
    first, second = first_second(len(cohort.rows))
    units = cohort.units[np.concatenate([first[pairs], second[pairs]])]
    return {"n_pairs": int(pairs.sum()), "n_bases": len(np.unique(units))}


def _spread(lucky: Values, times: NDArray[np.int64], resampling: Resampling) -> dict[str, float]:
    """Return the mean accuracy of random orders, and the interval that contains them."""
    values = lucky @ times / times.sum()
    low, high = resampling.bounds(values)
    return {"accuracy": float(values.mean()), "low": low, "high": high}


@dataclass(frozen=True)
class Reference:
    """Forecasters to compare with. candidates: mask of candidates for the best, shape (n,); indicators: mask, shape (n,);
    rival: index of the forecaster `config`; units: number of resampled units."""

    candidates: Mask
    indicators: Mask
    rival: int | None
    units: int


def _figures(earned: Values, asked: Mask, reference: Reference, setting: SplitSetting) -> list[dict[str, float | None]]:
    """Return accuracy of each forecaster with intervals, sd over rounds, gain and lead; earned: shape (n, rounds, pairs)."""
    used = asked.any(axis=0)
    total, times = (earned * asked).sum(axis=1)[:, used], asked.sum(axis=0)[used]
    values = total.sum(axis=1) / times.sum()
    weights = setting.weights[:, used]
    counts = weights @ times
    resampled = (weights @ total.T)[counts > 0] / counts[counts > 0, None]
    percentiles, level = setting.resampling.columns(resampled), setting.resampling.level
    rows: list[dict[str, float | None]] = [
        {"accuracy": float(value), "sd": sd} | ({"low": float(low), "high": float(high)} if high > low else NO_ENDS)
        for value, sd, (low, high) in zip(values, _over_rounds(earned, asked), percentiles.T, strict=True)
    ]
    joint = _jointly(values - 0.5, resampled - 0.5, reference.candidates, reference.units, level, 0.5)
    _add(rows, "", [(_above_chance(low), _above_chance(high), p) for low, high, p in joint])
    if reference.rival is not None:
        gains, drawn = values - values[reference.rival], resampled - resampled[:, [reference.rival]]
        for row, value, (low, high) in zip(rows, gains, setting.resampling.columns(drawn).T, strict=True):
            row |= {"gain": float(value), "gain_low": float(low), "gain_high": float(high)}
        _add(rows, "gain_", _jointly(gains, drawn, reference.candidates, reference.units, level))
    if reference.indicators.any():
        best = np.flatnonzero(reference.indicators)[values[reference.indicators].argmax()]
        _lead(rows, values - values[best], resampled - resampled[:, [best]], reference.units, level)
    return rows


def _add(rows: list[dict[str, float | None]], prefix: str, joint: Sequence[tuple[float | None, ...]]) -> None:
    """Add joint intervals and p-values to each row, in columns with a prefix."""
    for row, values in zip(rows, joint, strict=True):
        row |= dict(zip((f"{prefix}joint_low", f"{prefix}joint_high", f"{prefix}p_value"), values, strict=True))


def _lead(rows: list[dict[str, float | None]], values: Values, resampled: Values, units: int, level: float) -> None:
    """Add the lead over the best single indicator to each row, with Student's interval over units."""
    for row, value, error in zip(rows, values, resampled.std(axis=0), strict=True):
        margins = normal(float(error), units - 1)
        low, high = ends(float(value), margins, level, (-1.0, 1.0))
        row |= {"lead": float(value), "lead_low": low, "lead_high": high, "lead_p_value": tested(float(value), margins)}


def _above_chance(end: float | None) -> float | None:
    """Return an end of an interval of an accuracy from its distance to 0.5."""
    return None if end is None else 0.5 + end


def _jointly(
    values: Values, resampled: Values, candidates: Mask, units: int, level: float, limit: float = 1.0
) -> list[tuple[float | None, float | None, float | None]]:
    """Return a simultaneous interval and a corrected p-value against 0 for each candidate; None for other forecasters.

    values: shape (n,); resampled: shape (resamples, n); units: number of resampled units; limit: no value lies further
    from 0, so the intervals are cut there, which keeps their coverage. Both use the largest standardised
    distance of any candidate from its value in a resample (Westfall & Young 1993, section 2.5). Its quantile is converted from
    the normal to Student's distribution with units - 1 degrees of freedom, since few units estimate their spread poorly.
    The ends are None if all resamples are equal, as for an indicator that orders every pair right: its uncertainty is unknown.
    """
    intervals: list[tuple[float | None, float | None, float | None]] = [(None, None, None)] * len(values)
    indices = np.flatnonzero(candidates)
    if not len(indices):
        return intervals
    away = resampled[:, indices] - values[indices]
    error = np.maximum(away.std(axis=0), np.finfo(float).tiny)
    largest = np.abs(away / error).max(axis=1)
    width = student_width(1 - student_tail(float(np.quantile(largest, level)), NORMAL), units - 1)
    for index, spread in zip(indices, error, strict=True):
        reached = normal_width(1 - student_tail(values[index] / spread, units - 1))
        beyond = (1 + np.sum(largest >= reached)) / (1 + len(largest))
        low, high = (
            max(-limit, float(values[index] - width * spread)),
            min(limit, float(values[index] + width * spread)),
        )
        intervals[index] = (low, high, float(beyond)) if spread > ROUNDING else (None, None, float(beyond))
    return intervals


def _over_rounds(earned: Values, asked: Mask) -> list[float | None]:
    """Return the standard deviation of each forecaster's accuracy over rounds with pairs; None for a single round."""
    sizes = asked.sum(axis=1)
    if (sizes > 0).sum() < 2:
        return [None] * len(earned)
    values = (earned * asked).sum(axis=2)[:, sizes > 0] / sizes[sizes > 0]
    return [float(value) for value in values.std(axis=1, ddof=1)]
