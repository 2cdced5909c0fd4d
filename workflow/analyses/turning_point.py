"""The step beyond which more pre-training adds less, of each curve (arXiv 2408.06663, section 6.2, names some by eye)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workflow.comparison import PAIR_KEYS, Difference, Evidence, Level
from workflow.curves import Knot, bendable, curve, knot
from workflow.statistics import Resampling, Values

LINE = [key for key in PAIR_KEYS if key != "step"]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Three rows for each curve over five steps or more: of a model line on a test (`level`), of tuned minus base (`gain`).

    A continuous line with one knot is fitted over training steps. `turning_step` is the knot and the p-value of a bend at
    all. Its interval goes from a step of the study to another: between two steps a curve may bend gradually, and where
    the lines meet says nothing of that. Where a straight line fits as well, it is the whole range. `slope_before`
    and `slope_after` are in points of the metric for 100,000 steps, with p-values against 0: beyond the turning step,
    more pre-training adds less than the upper end of `slope_after`. It is a point of diminishing returns only where the
    slope after is the lower one. Of a knot between the first two steps, the slope before is their mean slope, and likewise
    between the last two. n counts steps; step is null. What is assumed of the noise: `curves`.
    """
    return [*_rows("level", evidence.levels, how), *_rows("gain", evidence.changes, how)]


def observed(steps: Values, found: Knot) -> tuple[float, float]:
    """The confidence set's ends, each moved outwards to a step of the study."""
    return float(steps[steps <= found.low].max()), float(steps[steps >= found.high].min())


def _rows(group: str, points: Sequence[Level | Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in points:
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    for place, own in lines.items():
        line = curve(own, how)
        if bendable(line):
            found = knot(line, how)
            keys = {"group": group, **dict(zip(LINE, place, strict=True)), "n": len(own)}
            low, high = observed(line.steps, found)
            facts = {"value": found.step, "low": low, "high": high, "p_value": found.p_value}
            yield {**keys, "estimator": "turning_step", **facts}
            yield {**keys, "estimator": "slope_before", **asdict(found.before)}
            yield {**keys, "estimator": "slope_after", **asdict(found.after)}
