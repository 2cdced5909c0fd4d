"""Which tests can tell a study's bases apart: the spread of their scores beside its noise (arXiv 2508.13144, section 3).

Signal is the dispersion of scores, the highest less the lowest; noise is their standard deviation over the last checkpoints of a
run. Both are relative to the mean there, which cancels in their ratio. Of a run with few checkpoints, and wherever that is more,
noise is the standard error of a score over its rows, and over seeds where their variance is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workflow.analysis.analyses.learning import in_domain
from workflow.analysis.evidence import PAIR_KEYS, Evidence, Level
from workflow.statistics import SMALLEST, Resampling, normal_width

LINE = [key for key in PAIR_KEYS if key not in ("family", "step")]
LAST = 1 / 3  # of a run's checkpoints: the last, which noise is read from
FEWEST = 3  # of them


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Three rows for each test, way of testing and tuning, over all bases of all families: `signal`, `noise`, `signal_to_noise`.

    Of untouched bases all tests, of tuned models those of the domain tuned on. n counts bases, two at least. The p-value of
    `signal_to_noise` is that of the range of as many equal bases with this noise (Tukey's studentised range).
    """
    home = {id(change.tuned) for change in evidence.changes if in_domain(change)}
    lines: dict[tuple[Any, ...], list[Level]] = {}
    for level in evidence.levels:
        if level.uncertain and (level.keys["recipe"] == "none" or id(level) in home):
            lines.setdefault(tuple(level.keys[key] for key in LINE), []).append(level)
    return [
        row
        for place, own in lines.items()
        if len(own) > 1
        for row in _rows(dict(zip(LINE, place, strict=True)), own, how)
    ]


def _rows(keys: dict[str, Any], levels: Sequence[Level], how: Resampling) -> Iterator[dict[str, Any]]:
    """The rows of one test. Bases of several families have no family of their own."""
    families = sorted({level.keys["family"] for level in levels})
    keys = keys | {"family": families[0] if len(families) == 1 else None, "n": len(levels)}
    signal = float(np.ptp([level.value for level in levels]))
    noise = max(_of_rows(levels, how.level), _of_checkpoints(levels))
    yield {**keys, "estimator": "signal", "value": signal}
    yield {**keys, "estimator": "noise", "value": noise}
    if noise > 0:
        yield {
            **keys,
            "estimator": "signal_to_noise",
            "value": signal / noise,
            "p_value": range_tail(signal / noise, len(levels)),
        }


def _of_rows(levels: Sequence[Level], level: float) -> float:
    """Root mean square of the scores' standard errors, by their margins."""
    errors = [sum(one.margins(level)) / 2 / normal_width(level) for one in levels]
    return float(np.sqrt(np.mean(np.square(errors))))


def _of_checkpoints(levels: Sequence[Level]) -> float:
    """Standard deviation over the last checkpoints of each run, pooled over runs; 0 where no run has enough."""
    runs: dict[str, list[Level]] = {}
    for level in sorted(levels, key=lambda level: level.keys["step"]):
        runs.setdefault(level.keys["family"], []).append(level)
    last = [
        np.array([one.value for one in own[-int(len(own) * LAST) :]])
        for own in runs.values()
        if len(own) * LAST >= FEWEST
    ]
    freedom = sum(len(own) - 1 for own in last)
    return float(np.sqrt(sum(((own - own.mean()) ** 2).sum() for own in last) / freedom)) if last else 0.0


def range_tail(ratio: float, n: int) -> float:
    """Probability that the range of n independent standard normal variables is larger than a ratio; never below SMALLEST."""
    from scipy.stats import studentized_range

    return max(SMALLEST, float(studentized_range.sf(ratio, n, np.inf)))
