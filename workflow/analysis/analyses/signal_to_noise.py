"""Signal-to-noise ratio of tests: which tests distinguish a study's bases (arXiv 2508.13144, section 3).

Signal is the dispersion of scores, the highest minus the lowest. Noise is their standard deviation over the last checkpoints
of a run. Both are relative to the mean there, which cancels in their ratio. If a run has few checkpoints, or if that is
larger, noise is the standard error of a score over its rows, and over seeds if their variance is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workflow.analysis.analyses.learning import in_domain
from workflow.analysis.evidence import PAIR_KEYS, Evidence, Level
from workflow.statistics import SMALLEST, Resampling, normal_width

LINE = [key for key in PAIR_KEYS if key not in ("family", "step")]
LAST = 1 / 3  # share of a run's checkpoints, the last ones, that noise is estimated from
FEWEST = 3  # fewest such checkpoints

SAVED_STEPS_ONLY = True


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Three rows for each test, way of testing and fine-tuning, over all bases of all families: `signal`, `noise`,
    `signal_to_noise`.

    For untouched bases all tests, for fine-tuned models those in the domain of the fine-tuning task. n is the number of
    bases, at least two. The p-value of `signal_to_noise` is that of the range of as many equal bases with this noise
    (Tukey's studentised range).
    """
    home = {id(change.tuned) for change in evidence.changes if in_domain(change)}
    lines: dict[tuple[Any, ...], list[Level]] = {}
    for level in evidence.levels:
        if level.uncertain and (level.keys["recipe"] == "none" or id(level) in home):
            lines.setdefault(tuple(level.keys[key] for key in LINE), []).append(level)
    return [
        row
        for line_keys, line in lines.items()
        if len(line) > 1
        for row in _rows(dict(zip(LINE, line_keys, strict=True)), line, resampling)
    ]


def _rows(keys: dict[str, Any], levels: Sequence[Level], resampling: Resampling) -> Iterator[dict[str, Any]]:
    """The rows of one test. The family is null if bases of several families are compared."""
    families = sorted({level.keys["family"] for level in levels})
    keys = keys | {"family": families[0] if len(families) == 1 else None, "n": len(levels)}
    signal = float(np.ptp([level.value for level in levels]))
    noise = max(_of_rows(levels, resampling.level), _of_checkpoints(levels))
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
    """Root mean square of the standard errors of scores, from their margins."""
    errors = [sum(one.margins(level)) / 2 / normal_width(level) for one in levels]
    return float(np.sqrt(np.mean(np.square(errors))))


def _of_checkpoints(levels: Sequence[Level]) -> float:
    """Standard deviation over the last checkpoints of each run, pooled over runs; 0 if no run has enough of them."""
    runs: dict[str, list[Level]] = {}
    for level in sorted(levels, key=lambda level: level.keys["step"]):
        runs.setdefault(level.keys["family"], []).append(level)
    last = [
        np.array([one.value for one in run[-int(len(run) * LAST) :]])
        for run in runs.values()
        if len(run) * LAST >= FEWEST
    ]
    freedom = sum(len(run) - 1 for run in last)
    return float(np.sqrt(sum(((run - run.mean()) ** 2).sum() for run in last) / freedom)) if last else 0.0


def range_tail(ratio: float, n: int) -> float:
    """Probability that the range of n independent standard normal variables exceeds a ratio; at least SMALLEST."""
    from scipy.stats import studentized_range

    return max(SMALLEST, float(studentized_range.sf(ratio, n, np.inf)))
