"""How often each forecaster is right: pairwise accuracy by split, subset and tie rule, with intervals over bases."""

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
ENOUGH = 8  # units: resamples of fewer repeat each other, and their interval is too narrow to be shown


@dataclass(frozen=True)
class Setting:
    """What all rows of a split share.

    asked: pairs of each round, shape (rounds, pairs); weights: of pairs in resamples of bases, shape (resamples,
    pairs); random: preferences of random orders, shape (orders, pairs); chosen: combinations that were chosen on the targets.
    """

    cohort: Cohort
    asked: Mask
    weights: Values
    random: Values
    how: Resampling
    chosen: frozenset[str] = frozenset()

    def candidate(self, forecast: Forecast) -> bool:
        """Whether a forecaster is one of those that the best is sought among: indicators, and means that were not chosen on
        the targets that they are judged by."""
        return forecast.kind in MEASURED and forecast.forecaster.partition(":")[2] not in self.chosen


def forecast(
    cohort: Cohort,
    block: Mapping[str, Any],
    split: str,
    how: Resampling,
    report: Callable[[int, int], None],
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables `forecasts`, `rankings` and `importance` for one split.

    block: the cohort's settings; report: called with the targets that have been fitted and all of them.
    """
    rounds = splits.rounds(cohort, split)
    found: dict[str, list[dict[str, Any]]] = {"forecasts": [], "rankings": [], "importance": []}
    if not rounds:
        return found
    asked = splits.asked(rounds)
    made = forecasters.unfitted(cohort, block["combinations"], len(rounds))
    for number, source in enumerate(cohort.targets, start=1):
        fitted, importance = forecasters.fitted(cohort, source, rounds)
        made += fitted
        found["importance"] += _importance(cohort, source, importance, how)
        report(number, len(cohort.targets))
    where = replace(setting(cohort, asked, how), chosen=frozenset(block.get("chosen_on_targets", ())))
    for target in cohort.targets:
        masks = subsets(cohort, target, split, block["contrasts"])
        found["forecasts"] += evaluate(made, target, masks, where)
        found["rankings"] += ranking.evaluate(made, target, cohort, asked, how)
    return found


def _importance(
    cohort: Cohort, source: str, importance: Mapping[str, Values], how: Resampling
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.IMPORTANCE`; importance: by forecaster, shape (fits, columns)."""
    columns = {"lightgbm": cohort.indicators, forecasters.BOTH: [*cohort.fields, *cohort.indicators]}
    for name, shares in importance.items():
        for column, own in zip(columns[name], shares.T, strict=True):
            low, high = how.bounds(own)
            figures = {
                "value": float(own.mean()),
                "sd": float(own.std(ddof=1)),
                "low": low,
                "high": high,
                "n": len(own),
            }
            yield {"forecaster": name, "source": source, "column": column} | figures


def setting(cohort: Cohort, asked: Mask, how: Resampling) -> Setting:
    """The setting of a split, its resamples drawn."""
    random = forecasters.chance(len(cohort.rows), how.seed)
    return Setting(cohort, asked, resampled_weights(cohort.units, how), random, how)


def subsets(cohort: Cohort, target: str, split: str, contrasted: Sequence[Sequence[str]]) -> dict[str, Mask]:
    """The sets of pairs that accuracy is given for in a split: name -> pairs.

    Everywhere `all`; by gap and by config except where a field's value is left out; by contrast over every pair.
    """
    difference = differences(cohort.values([target])[:, 0])
    found = {"all": np.ones(len(difference), dtype=bool)}
    if split in ("every_pair", "random"):
        found |= gaps(difference) | matched(cohort)
    if split == "every_pair":
        for fields in contrasted:
            found |= contrasts(cohort, fields)
    return found


def evaluate(
    forecasts: Sequence[Forecast], target: str, masks: Mapping[str, Mask], where: Setting
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.FORECASTS` for one target: every forecaster and chance on every subset under every tie rule.

    A pair counts once for each round that asks about it. sd is the standard deviation of the accuracy over rounds; the
    interval is over resampled bases, forecasters as fitted, and null below ENOUGH models. Of indicators and means of them the
    joint intervals hold for all at once, so that they hold for the best of them, and the p-values are corrected likewise
    (`_jointly`). gain is the accuracy minus that of `config` fitted on the same target, lead that minus the accuracy of the best
    single indicator on the same pairs. For `chance` the interval holds the random orders themselves.
    """
    difference = differences(where.cohort.values([target])[:, 0])
    preferences = np.array([forecast.preferences for forecast in forecasts])
    rival = next((n for n, own in enumerate(forecasts) if own.forecaster == CONFIG and own.source == target), None)
    for ties in TIES:
        earned, counted = credit(preferences, difference, ties)
        lucky, _ = credit(where.random, difference, ties)
        for subset, mask in masks.items():
            asked = where.asked & counted & mask
            times = asked.sum(axis=0)
            if times.any():
                keys = {"target": target, "subset": subset, "ties": ties, **_sizes(where.cohort, times > 0)}
                yield keys | {"forecaster": CHANCE, "kind": CHANCE} | _spread(lucky, times, where.how)
                judged = Judged(
                    np.array([where.candidate(forecast) for forecast in forecasts]),
                    np.array([forecast.kind == "indicator" for forecast in forecasts]),
                    rival,
                    keys["n_bases"],
                )
                for forecast, figures in zip(forecasts, _figures(earned, asked, judged, where), strict=True):
                    own = {"forecaster": forecast.forecaster, "kind": forecast.kind, "source": forecast.source}
                    own |= {"chosen_on_targets": forecast.forecaster.partition(":")[2] in where.chosen}
                    yield keys | own | (figures if keys["n_bases"] >= ENOUGH else figures | UNKNOWN)


NO_ENDS: dict[str, float | None] = {"low": None, "high": None}
UNKNOWN = {name: None for name in FORECASTS.names if name.endswith(("low", "high", "p_value"))}


def _sizes(cohort: Cohort, pairs: Mask) -> dict[str, int]:
    """Pairs, and the different units that their bases are of."""
    first, second = first_second(len(cohort.rows))
    units = cohort.units[np.concatenate([first[pairs], second[pairs]])]
    return {"n_pairs": int(pairs.sum()), "n_bases": len(np.unique(units))}


def _spread(lucky: Values, times: NDArray[np.int64], how: Resampling) -> dict[str, float]:
    """Mean accuracy of random orders, and the interval that they lie in."""
    values = lucky @ times / times.sum()
    low, high = how.bounds(values)
    return {"accuracy": float(values.mean()), "low": low, "high": high}


@dataclass(frozen=True)
class Judged:
    """What forecasters are judged beside. candidates: those that the best is sought among, shape (n,); indicators: likewise;
    rival: place of all config fields together; units: that are resampled."""

    candidates: Mask
    indicators: Mask
    rival: int | None
    units: int


def _figures(earned: Values, asked: Mask, judged: Judged, where: Setting) -> list[dict[str, float | None]]:
    """Accuracy of each forecaster with intervals, spread over rounds, gain and lead; earned: shape (n, rounds, pairs)."""
    used = asked.any(axis=0)
    total, times = (earned * asked).sum(axis=1)[:, used], asked.sum(axis=0)[used]
    values = total.sum(axis=1) / times.sum()
    weights = where.weights[:, used]
    there = weights @ times
    resampled = (weights @ total.T)[there > 0] / there[there > 0, None]
    percentiles, level = where.how.columns(resampled), where.how.level
    found: list[dict[str, float | None]] = [
        {"accuracy": float(value), "sd": sd} | ({"low": float(low), "high": float(high)} if high > low else NO_ENDS)
        for value, sd, (low, high) in zip(values, _over_rounds(earned, asked), percentiles.T, strict=True)
    ]
    joint = _jointly(values - 0.5, resampled - 0.5, judged.candidates, judged.units, level)
    _add(found, "", [(low and 0.5 + low, high and 0.5 + high, p) for low, high, p in joint])
    if judged.rival is not None:
        gains, drawn = values - values[judged.rival], resampled - resampled[:, [judged.rival]]
        for row, value, (low, high) in zip(found, gains, where.how.columns(drawn).T, strict=True):
            row |= {"gain": float(value), "gain_low": float(low), "gain_high": float(high)}
        _add(found, "gain_", _jointly(gains, drawn, judged.candidates, judged.units, level))
    if judged.indicators.any():
        best = np.flatnonzero(judged.indicators)[values[judged.indicators].argmax()]
        _lead(found, values - values[best], resampled - resampled[:, [best]], judged.units, level)
    return found


def _add(found: list[dict[str, float | None]], of: str, joint: Sequence[tuple[float | None, ...]]) -> None:
    """Joint intervals and p-values as columns of each row."""
    for row, own in zip(found, joint, strict=True):
        row |= dict(zip((f"{of}joint_low", f"{of}joint_high", f"{of}p_value"), own, strict=True))


def _lead(found: list[dict[str, float | None]], values: Values, resampled: Values, units: int, level: float) -> None:
    """Accuracy beyond the best single indicator's, with Student's interval over units."""
    for row, value, error in zip(found, values, resampled.std(axis=0), strict=True):
        margins = normal(float(error), units - 1)
        low, high = ends(float(value), margins, level)
        row |= {"lead": float(value), "lead_low": low, "lead_high": high, "lead_p_value": tested(float(value), margins)}


def _jointly(
    values: Values, resampled: Values, candidates: Mask, units: int, level: float
) -> list[tuple[float | None, float | None, float | None]]:
    """Of each candidate an interval that holds for all of them at once, and a p-value against 0 that is corrected for all.

    values: shape (n,); resampled: shape (resamples, n); units: that are resampled. Both are by the largest standardised distance
    of any candidate from its value in a resample (Westfall & Young 1993, section 2.5), taken for a quantile of the normal
    distribution and turned into Student's with units - 1 degrees of freedom, since few units tell little of their own spread.
    The ends are None for what is no candidate, and where all resamples are alike, as of an indicator that orders every pair
    right: its uncertainty is unknown.
    """
    found: list[tuple[float | None, float | None, float | None]] = [(None, None, None)] * len(values)
    places = np.flatnonzero(candidates)
    if not len(places):
        return found
    away = resampled[:, places] - values[places]
    error = np.maximum(away.std(axis=0), np.finfo(float).tiny)
    largest = np.abs(away / error).max(axis=1)
    width = student_width(1 - student_tail(float(np.quantile(largest, level)), NORMAL), units - 1)
    for place, own in zip(places, error, strict=True):
        reached = normal_width(1 - student_tail(values[place] / own, units - 1))
        beyond = (1 + np.sum(largest >= reached)) / (1 + len(largest))
        joint = (values[place] - width * own, values[place] + width * own) if own > ROUNDING else (None, None)
        found[place] = (*(end if end is None else float(end) for end in joint), float(beyond))
    return found


def _over_rounds(earned: Values, asked: Mask) -> list[float | None]:
    """Standard deviation of each forecaster's accuracy over the rounds that have pairs; None for a single one."""
    sizes = asked.sum(axis=1)
    if (sizes > 0).sum() < 2:
        return [None] * len(earned)
    values = (earned * asked).sum(axis=2)[:, sizes > 0] / sizes[sizes > 0]
    return [float(value) for value in values.std(axis=1, ddof=1)]
