"""Whether a score has fallen again by the last steps of pre-training, of bases and tuned models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow.analysis.curves import Curve, curve
from workflow.analysis.declines import comparable, decline
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level
from workflow.evaluation import metric_names
from workflow.statistics import Resampling

LINE = [key for key in PAIR_KEYS if key != "step"]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Five rows for each curve with six steps in its last two decades: a model line (`level`), or tuned minus base (`gain`).

    - `decline`: the mean score of the run of steps that stands out most above the last steps, less the mean of those. The lower
      end holds with the choice of both runs allowed for, and so does the one-sided p-value against no decline; there is no
      upper end. The value itself is that of the chosen runs, so it is on the high side.
    - `best_from`, `best_to`, `last_from`, `last_to`: the first and the last step of both runs, as values.

    Of a metric of which less is better, a decline is a rise, and the value is the last steps' less the best; metrics of which
    neither way is better have none. Tests that are part of a mean over tests which is there as well are left out, so that many
    small ones do not hide the others. n counts the compared steps; step is null. What is assumed of the noise: `declines`.
    """
    parts = metric_names.parts(evidence.reported)
    levels, changes = (
        [one for one in own if one.keys["test"] not in parts] for own in (evidence.levels, evidence.changes)
    )
    return [*_rows("level", levels, how), *_rows("gain", changes, how)]


def _rows(group: str, points: Sequence[Level | Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in points:
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    for place, own in lines.items():
        line, way = curve(own, how), better(own[0])
        if way == "lower":
            line = Curve(line.steps, -line.values, -line.draws)
        if way and comparable(line):
            found = decline(line, how)
            keys = {"group": group, **dict(zip(LINE, place, strict=True)), "n": found.n}
            yield {**keys, "estimator": "decline", "value": found.value, "low": found.low, "p_value": found.p_value}
            ends = zip(("best_from", "best_to", "last_from", "last_to"), (*found.best, *found.last), strict=True)
            yield from ({**keys, "estimator": name, "value": step} for name, step in ends)


def better(point: Level | Difference) -> str | None:
    """Which way of a curve's metric is better."""
    level: Any = point.first if isinstance(point, Difference) else point
    return level.better
