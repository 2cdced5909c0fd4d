"""Turning step of each curve, beyond which more pre-training adds less (arXiv 2408.06663, section 6.2, names some by eye)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workflow.analysis.curves import Curve, Knot, bendable, curve, knot
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level
from workflow.analysis.laws import BEND, held_out, law_p_value, thinned
from workflow.statistics import Resampling, Values

LINE = [key for key in PAIR_KEYS if key != "step"]

SAVED_STEPS_ONLY = True


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each curve with five steps or more: of a model line on a test (`level`), of fine-tuned minus base (`gain`).

    Few curves along pre-training bend at a step. Most follow a learning curve, and a line with a bend that is fitted to such
    a curve bends where the steps happen to lie. A bend is therefore compared with smooth laws (`laws`), and a turning step
    is stated only if the bend predicts better.

    - `turning_step`: the step, null if none is stated; its interval goes from one step of the study to another. A step is
      stated if the line with a bend predicts held-out steps better than the straight line and every law, and is
      significantly better than each of them (the p-value is the larger of those against the straight line and against the
      best law). The same must hold without the first step, without the last, with every second step, and without the steps
      below a hundredth of the last, with confidence sets that all overlap.
    - `knot`: the best-fitting bend, stated or not, with its confidence set and the p-value against a straight line.
    - `slope_before` and `slope_after` that bend, in points of the metric per 100,000 steps, with p-values against 0. For a
      knot between the first two steps, the slope before is their mean slope; likewise between the last two.
    - `held_out_error_…` of the bend, the straight line and each law: root mean square error over inner steps, each left out.

    n is the number of steps; step is null. For the assumptions about noise, see `curves`.
    """
    return [*_rows("level", evidence.levels, resampling), *_rows("gain", evidence.changes, resampling)]


def observed(steps: Values, turn: Knot) -> tuple[float, float]:
    """Ends of the confidence set, each moved outwards to a step of the study."""
    return float(steps[steps <= turn.low].max()), float(steps[steps >= turn.high].min())


def _rows(group: str, points: Sequence[Level | Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in points:
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    for line_keys, points_of_line in lines.items():
        line = curve(points_of_line, resampling)
        if bendable(line):
            keys = {"group": group, **dict(zip(LINE, line_keys, strict=True)), "n": len(points_of_line)}
            yield from ({**keys, **row} for row in of_curve(line, resampling))


def of_curve(line: Curve, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """The rows of one curve."""
    turn = knot(line, resampling)
    low, high = observed(line.steps, turn)
    p_value = max(turn.p_value, law_p_value(line, resampling))
    if p_value < 1 - resampling.level and bends_best(line) and survives(line, turn, resampling):
        yield {"estimator": "turning_step", "value": turn.step, "low": low, "high": high, "p_value": p_value}
    else:
        yield {"estimator": "turning_step", "value": None, "p_value": p_value}
    yield {"estimator": "knot", "value": turn.step, "low": low, "high": high, "p_value": turn.p_value}
    yield {"estimator": "slope_before", **asdict(turn.before)}
    yield {"estimator": "slope_after", **asdict(turn.after)}
    yield from ({"estimator": f"held_out_error_{name}", "value": error} for name, error in held_out(line).items())


def bends_best(line: Curve) -> bool:
    """Whether the line with a bend predicts held-out steps best."""
    errors = held_out(line)
    return min(errors, key=lambda name: errors[name]) == BEND


def survives(line: Curve, turn: Knot, resampling: Resampling) -> bool:
    """Whether a bend is found again and predicts best in each thinned curve, with a step that all their confidence sets
    share.
    """
    parts = thinned(line)
    if not all(bendable(part) for part in parts):
        return False
    again = [knot(part, resampling) for part in parts]
    ends = [observed(line.steps, turn), *(observed(part.steps, one) for part, one in zip(parts, again, strict=True))]
    common = max(low for low, _ in ends) <= min(high for _, high in ends)
    return (
        common and all(one.p_value < 1 - resampling.level for one in again) and all(bends_best(part) for part in parts)
    )
