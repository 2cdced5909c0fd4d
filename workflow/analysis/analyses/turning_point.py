"""The step beyond which more pre-training adds less, of each curve (arXiv 2408.06663, section 6.2, names some by eye)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workflow.analysis.curves import Curve, Knot, bendable, curve, knot
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level
from workflow.analysis.laws import BEND, held_out, law_p_value, thinned
from workflow.statistics import Resampling, Values

LINE = [key for key in PAIR_KEYS if key != "step"]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each curve over five steps or more: of a model line on a test (`level`), of tuned minus base (`gain`).

    Few curves along pre-training bend at a step: most follow a law of learning, and a line with a bend, fitted to such a curve,
    bends where the steps happen to lie. So a bend is compared with smooth laws (`laws`), and named only where it holds.

    - `turning_step`: the step, null where none is named; its interval goes from a step of the study to another. A step is named
      where the line with a bend predicts held-out steps better than the straight line and every law, is refused in favour of
      none of them (the p-value is the larger of those of the straight line and of the best law), and does so again without the
      first step, without the last, with every second step, and without those below a hundredth of the last, each time in a set
      of steps that overlaps all others.
    - `knot`: the bend that fits best, named or not, with its confidence set and the p-value against a straight line.
    - `slope_before` and `slope_after` that bend, in points of the metric for 100,000 steps, with p-values against 0.
      Of a knot between the first two steps, the slope before is their mean slope, and likewise between the last two.
    - `held_out_error_…` of the bend, the straight line and each law: root mean square over inner steps, each left out.

    n counts steps; step is null. What is assumed of the noise: `curves`.
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
            keys = {"group": group, **dict(zip(LINE, place, strict=True)), "n": len(own)}
            yield from ({**keys, **row} for row in of_curve(line, how))


def of_curve(line: Curve, how: Resampling) -> Iterator[dict[str, Any]]:
    """The rows of one curve."""
    found = knot(line, how)
    low, high = observed(line.steps, found)
    p_value = max(found.p_value, law_p_value(line, how))
    if p_value < 1 - how.level and bends_best(line) and survives(line, found, how):
        yield {"estimator": "turning_step", "value": found.step, "low": low, "high": high, "p_value": p_value}
    else:
        yield {"estimator": "turning_step", "value": None, "p_value": p_value}
    yield {"estimator": "knot", "value": found.step, "low": low, "high": high, "p_value": found.p_value}
    yield {"estimator": "slope_before", **asdict(found.before)}
    yield {"estimator": "slope_after", **asdict(found.after)}
    yield from ({"estimator": f"held_out_error_{name}", "value": error} for name, error in held_out(line).items())


def bends_best(line: Curve) -> bool:
    """Whether held-out steps are predicted best by the line with a bend."""
    errors = held_out(line)
    return min(errors, key=lambda name: errors[name]) == BEND


def survives(line: Curve, found: Knot, how: Resampling) -> bool:
    """Whether a bend is found again, and predicts best, in each thinned curve, and all sets of steps have one in common."""
    parts = thinned(line)
    if not all(bendable(part) for part in parts):
        return False
    again = [knot(part, how) for part in parts]
    ends = [observed(line.steps, found), *(observed(part.steps, one) for part, one in zip(parts, again, strict=True))]
    common = max(low for low, _ in ends) <= min(high for _, high in ends)
    return common and all(one.p_value < 1 - how.level for one in again) and all(bends_best(part) for part in parts)
