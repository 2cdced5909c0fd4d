"""Forecasts what more pre-training would add: each score at later steps, from the steps so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workflow.analysis.evidence import PAIR_KEYS, Evidence, Level
from workflow.analysis.extrapolation import FALL, Forecast, Series
from workflow.statistics import ROUNDING, Margins, Resampling, normal_width, tested

LINE = [key for key in PAIR_KEYS if key != "step"]
SORT = ["family", "format", "recipe", "suite", "test_format", "shots"]
FURTHER = (1.25, 1.5, 2.0)  # later steps, as multiples of the last step
COVERAGE = 0.8
SCORES = "scores"
ASSUMED = (
    "A decline that begins later cannot be foreseen: intervals allow for one as fast as most of those of Pythia-70m and -160m "
    "(0.06 of a score from 0 to 1 for each doubling of steps), not for a faster one"
)

SAVED_STEPS_ONLY = True


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for 1.25, 1.5 and 2 times the last step of each sort of curve: bases, and models fine-tuned with one recipe.

    Scores between 0 and 1 for which more is better are one sort, whatever their metric (group `scores`). Other scores are
    grouped by metric. Metrics without a better direction are not forecast.

    - `later_score` for each model line and test: the forecast score at the later step, which is the step of the row, with an
      80 % interval; n is the number of held-out steps behind it.
    - `later_change`: the forecast score minus the score at the last step; its p-value, against no change, assumes errors that
      are normal on either side, as wide as the interval.
    - `held_out_gain` for each sort (train and test null): the share by which the squared error on held-out steps is below
      that of the last value, with a one-sided p-value, which is 1 if a line in log steps does as well; n is the number of
      curves.
    - `shortfall` for each sort, without a value: the one-sided p-value against no decline of the last steps beyond the
      forecast from earlier ones.

    A forecast is null unless the gain is significant at the study's level, and if the p-value of the shortfall is below .2
    (1 minus the interval's level). It is also null if fewer than four curves share their steps or no steps can be held out
    that far ahead. Intervals allow for a decline that begins after the last step (`extrapolation.FALL`), so a rise is
    significant only if it is larger than what such a run loses. A forecast is for the same test rows and for fine-tuning with
    the same seeds. For the method, see `extrapolation`.
    """
    lines: dict[tuple[Any, ...], list[Level]] = {}
    for level in (level for level in evidence.levels if level.better):
        lines.setdefault(tuple(level.keys[key] for key in LINE), []).append(level)
    sorts: dict[tuple[Any, ...], list[list[Level]]] = {}
    for points in lines.values():
        ordered = sorted(points, key=lambda level: level.keys["step"])
        steps = tuple(level.keys["step"] for level in ordered)
        sorts.setdefault((*(points[0].keys[key] for key in SORT), _group(ordered), steps), []).append(ordered)
    rows = [
        row
        for (*group_keys, steps), points in sorted(sorts.items(), key=lambda entry: -len(entry[1]))
        if len(steps) > 1
        for row in _rows(
            dict(zip([*SORT, "group"], group_keys, strict=True)), np.array(steps, float), points, resampling
        )
    ]
    return _distinct(rows)


def _distinct(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those whose keys an earlier row has.

    Curves of one sort may have different steps. `held_out_gain` is then that of most curves, so that keys identify a row.
    """
    keys = [*PAIR_KEYS, "group", "estimator"]
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        distinct.setdefault(tuple(row.get(key) for key in keys), row)
    return list(distinct.values())


def _group(line: Sequence[Level]) -> str:
    """The group of curves that are forecast together."""
    score = line[0].better == "higher" and all(0 <= level.value <= 1 for level in line)
    return SCORES if score else line[0].metric


def _rows(
    sort: dict[str, Any], steps: np.ndarray, lines: Sequence[Sequence[Level]], resampling: Resampling
) -> Iterator[dict[str, Any]]:
    """The rows of all curves of one sort over the same steps."""
    values = np.array([[level.value for level in line] for line in lines])
    series, sign = Series(steps, values), -1 if lines[0][0].better == "lower" else 1
    fall = FALL if sort["group"] == SCORES else None
    for factor in FURTHER:
        later = round(factor * steps[-1])
        prediction = series.forecast(float(later), COVERAGE, sign, fall)
        gain, p_value, fallen = (
            (None, None, None) if prediction is None else (prediction.gain, prediction.p_value, prediction.fallen)
        )
        facts = {**sort, "step": later, "n": len(lines)}
        yield {**facts, "estimator": "held_out_gain", "value": gain, "p_value": p_value}
        yield {**facts, "estimator": "shortfall", "value": None, "p_value": fallen}
        known = (
            prediction is not None and prediction.p_value < 1 - resampling.level and prediction.fallen >= 1 - COVERAGE
        )
        for index, line in enumerate(lines):
            keys = {**line[0].keys, "group": sort["group"], "step": later, "n": prediction.held if prediction else 0}
            yield from _forecast(keys, prediction if known else None, index, float(values[index, -1]))


def _forecast(keys: dict[str, Any], prediction: Forecast | None, index: int, last: float) -> Iterator[dict[str, Any]]:
    """Both rows of one curve. Forecasts of scores between 0 and 1 stay there.

    If held-out steps were forecast without any error, which tells nothing about later steps, there is no forecast.
    """
    if prediction is None or prediction.high[index] - prediction.low[index] <= ROUNDING:
        yield from ({**keys, "estimator": name, "value": None} for name in ("later_score", "later_change"))
        return
    ends = np.array([prediction.values[index], prediction.low[index], prediction.high[index]])
    p_value = tested(float(ends[0] - last), margins(float(ends[0] - ends[1]), float(ends[2] - ends[0])))
    ends = np.clip(ends, 0, 1) if keys["group"] == SCORES else ends
    yield {**keys, "estimator": "later_score", **_ends(ends)}
    yield {**keys, "estimator": "later_change", **_ends(ends - last), "p_value": p_value}


def margins(below: float, above: float) -> Margins:
    """Margins of a forecast whose interval ends this far below and above it: normal on either side."""

    def at(level: float) -> tuple[float, float]:
        ratio = normal_width(level) / normal_width(COVERAGE)
        return below * ratio, above * ratio

    return at


def _ends(ends: np.ndarray) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), map(float, ends), strict=True))
