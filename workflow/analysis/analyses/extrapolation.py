"""What more pre-training would add: each score at later steps, forecast from the steps so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workflow.analysis.evidence import PAIR_KEYS, Evidence, Level
from workflow.analysis.extrapolation import Forecast, forecast
from workflow.statistics import NORMAL, ROUNDING, Resampling, normal, student_width, tested

LINE = [key for key in PAIR_KEYS if key != "step"]
SORT = ["family", "format", "recipe", "suite", "test_format", "shots"]
FURTHER = (1.25, 1.5, 2.0)  # later steps, in last steps
COVERAGE = 0.8
SCORES = "scores"
ASSUMED = "Forecasts assume that the run goes on as so far: their intervals do not cover a decline that begins later"


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for 1.25, 1.5 and 2 times the last step of each sort of curve: bases, and models tuned by one recipe.

    Scores between 0 and 1 of which more is better are of one sort, whatever their metric (group `scores`); others are of a sort
    with those of their metric. Metrics of which neither way is better are not forecast.

    - `later_score` of each model line and test: the forecast score at the later step, which is the row's step, with an 80 %
      interval; n counts the held-out steps that it was learnt from.
    - `later_change`: the same less the score at the last step; its p-value, of no change, takes the errors for normal.
    - `held_out_gain` of each sort (train and test null): by what share the squared error on held-out steps lies below that of
      the last value, with a one-sided p-value, which is 1 where a line in log steps does as well; n counts curves.
    - `shortfall` of each sort, which has no value: the one-sided p-value against no decline of the last steps beyond what earlier
      ones forecast.

    A forecast is null unless the gain is significant at the study's level, and where the p-value of the shortfall is below .2, 1
    less the interval's level; likewise where fewer than four curves share their steps or no steps can be held out that far ahead.
    Forecasts assume that no decline begins after the last step. A forecast is of the score on the same test rows, by a
    tuning with the same seeds. How: `extrapolation`.
    """
    lines: dict[tuple[Any, ...], list[Level]] = {}
    for level in (level for level in evidence.levels if level.better):
        lines.setdefault(tuple(level.keys[key] for key in LINE), []).append(level)
    sorts: dict[tuple[Any, ...], list[list[Level]]] = {}
    for own in lines.values():
        ordered = sorted(own, key=lambda level: level.keys["step"])
        steps = tuple(level.keys["step"] for level in ordered)
        sorts.setdefault((*(own[0].keys[key] for key in SORT), _group(ordered), steps), []).append(ordered)
    rows = [
        row
        for (*place, steps), own in sorted(sorts.items(), key=lambda entry: -len(entry[1]))
        if len(steps) > 1
        for row in _rows(dict(zip([*SORT, "group"], place, strict=True)), np.array(steps, float), own, how)
    ]
    return _distinct(rows)


def _distinct(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those whose keys an earlier row has: of curves of one sort over other steps, `held_out_gain` is that of
    most curves, so that the keys of a row name it alone."""
    keys = [*PAIR_KEYS, "group", "estimator"]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), row)
    return list(found.values())


def _group(line: Sequence[Level]) -> str:
    """What a curve is forecast together with."""
    score = line[0].better == "higher" and all(0 <= level.value <= 1 for level in line)
    return SCORES if score else line[0].metric


def _rows(
    sort: dict[str, Any], steps: np.ndarray, lines: Sequence[Sequence[Level]], how: Resampling
) -> Iterator[dict[str, Any]]:
    """The rows of curves of one sort over the same steps."""
    values = np.array([[level.value for level in line] for line in lines])
    for factor in FURTHER:
        later = round(factor * steps[-1])
        found = forecast(steps, values, float(later), COVERAGE, -1 if lines[0][0].better == "lower" else 1)
        gain, p_value, fallen = (None, None, None) if found is None else (found.gain, found.p_value, found.fallen)
        facts = {**sort, "step": later, "n": len(lines)}
        yield {**facts, "estimator": "held_out_gain", "value": gain, "p_value": p_value}
        yield {**facts, "estimator": "shortfall", "value": None, "p_value": fallen}
        known = found is not None and found.p_value < 1 - how.level and found.fallen >= 1 - COVERAGE
        for place, line in enumerate(lines):
            keys = {**line[0].keys, "group": sort["group"], "step": later, "n": found.held if found else 0}
            yield from _forecast(keys, found if known else None, place, float(values[place, -1]))


def _forecast(keys: dict[str, Any], found: Forecast | None, place: int, last: float) -> Iterator[dict[str, Any]]:
    """Both rows of one curve; what lies between 0 and 1 is forecast to stay there. Where held-out steps were forecast without any
    error, which says nothing of later ones, nothing is forecast."""
    if found is None or found.high[place] - found.low[place] <= ROUNDING:
        yield from ({**keys, "estimator": name, "value": None} for name in ("later_score", "later_change"))
        return
    ends = np.array([found.values[place], found.low[place], found.high[place]])
    error = float(ends[2] - ends[0]) / student_width(COVERAGE, NORMAL)
    p_value = tested(float(ends[0] - last), normal(error))
    ends = np.clip(ends, 0, 1) if keys["group"] == SCORES else ends
    yield {**keys, "estimator": "later_score", **_ends(ends)}
    yield {**keys, "estimator": "later_change", **_ends(ends - last), "p_value": p_value}


def _ends(ends: np.ndarray) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), map(float, ends), strict=True))
