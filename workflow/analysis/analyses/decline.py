"""Declines of a score by the last steps of pre-training, for bases and fine-tuned models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow.analysis.curves import improvement
from workflow.analysis.declines import comparable, decline
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, Level
from workflow.evaluation import metric_names
from workflow.statistics import Resampling

LINE = [key for key in PAIR_KEYS if key != "step"]

SAVED_STEPS_ONLY = True


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Five rows for each curve with six steps in its last two decades: a model line (`level`), or fine-tuned minus base
    (`gain`).

    - `decline`: the mean score of a run of steps minus that of the last steps, for the two runs with the most significant
      difference. The lower end and the one-sided p-value against no decline are corrected for the choice of the runs; there
      is no upper end. The value is not corrected, so it is biased upwards.
    - `best_from`, `best_to`, `last_from`, `last_to`: the first and the last step of both runs, as values.

    If less of a metric is better, a decline is a rise, and the sign of the value is changed; metrics without a better
    direction have no rows. Tests that are part of a reported mean over tests are left out, so that many small tests do not
    hide the others. n is the number of compared steps; step is null. For the assumptions about noise, see `declines`.
    """
    parts = metric_names.parts(evidence.reported)
    levels, changes = (
        [one for one in points if one.keys["test"] not in parts] for points in (evidence.levels, evidence.changes)
    )
    return [*_rows("level", levels, resampling), *_rows("gain", changes, resampling)]


def _rows(group: str, points: Sequence[Level | Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in points:
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    for line_keys, points_of_line in lines.items():
        line = improvement(points_of_line, resampling)
        if line and comparable(line):
            fall = decline(line, resampling)
            keys = {"group": group, **dict(zip(LINE, line_keys, strict=True)), "n": fall.n}
            yield {**keys, "estimator": "decline", "value": fall.value, "low": fall.low, "p_value": fall.p_value}
            ends = zip(("best_from", "best_to", "last_from", "last_to"), (*fall.best, *fall.last), strict=True)
            yield from ({**keys, "estimator": name, "value": step} for name, step in ends)
