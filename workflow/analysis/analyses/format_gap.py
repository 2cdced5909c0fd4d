"""Score in the default format minus score in another format, for bases and fine-tuned models (arXiv 2408.06663, Figures 2
and 14).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow import task
from workflow.analysis.curves import curve, trend
from workflow.analysis.evidence import PAIR_KEYS, Difference, Evidence, estimate, mean_over, places, seeded
from workflow.statistics import Resampling

DEFAULT = "default"
LINE = ["family", "train", "format", "recipe", "suite", "test", "shots"]
PLACE = ["family", "format", "suite", "shots"]


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each other format, in the group `default_minus_<format>`; `test_format` is null, since two formats are
    compared.

    - `difference_of_means` for each model and test: the same rows in both formats; the interval is over rows and seeds, n is
      the number of rows.
    - `difference_of_means` without test: the mean over the tests in the domain of the fine-tuning task, at each step, for
      all fine-tuned models (train null) and for bases on the same tests (train `none`). The interval is over tests, or over
      pairs of task and test; n is their number. The value is null if a test that other steps have is missing.
    - `last_minus_first` without test (step null): the change of that mean from the first step to the last, likewise.
    - `slope` for each model line and test (step null): the change of the gap over pre-training in points per 100,000 steps,
      with the interval of `curves`; n is the number of steps, at least three.

    Errors: ValueError if a model was scored on different rows in one of the formats.
    """
    return [row for name, gaps in sorted(_gaps(evidence).items()) for row in _rows({"group": name}, gaps, resampling)]


def _gaps(evidence: Evidence) -> dict[str, list[Difference]]:
    """Each model's difference between the default format and each other format: group -> differences."""

    def other_keys(keys: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(keys[key] for key in PAIR_KEYS if key != "test_format")

    defaults = {other_keys(level.keys): level for level in evidence.levels if level.keys["test_format"] == DEFAULT}
    gaps: dict[str, list[Difference]] = {}
    for level in evidence.levels:
        other = level.keys["test_format"]
        if other == DEFAULT or other_keys(level.keys) not in defaults:
            continue
        gap = Difference(defaults[other_keys(level.keys)], level)
        if not gap.aligned:
            raise ValueError(f"scored on other rows in the format '{other}' than in '{DEFAULT}': {level.keys}")
        gaps.setdefault(f"{DEFAULT}_minus_{other}", []).append(gap)
    return gaps


def _rows(keys: dict[str, Any], gaps: Sequence[Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    gaps = seeded(gaps)
    for gap in gaps:
        facts = {"estimator": "difference_of_means", "n": gap.n, "test_format": None}
        yield estimate({**gap.keys, **keys}, gap, resampling.level, **facts)
    yield from _slopes(keys, gaps, resampling)
    tuned = [gap for gap in gaps if gap.keys["recipe"] != "none" and _at_home(gap)]
    tests = {gap.keys["test"] for gap in tuned}
    bases = [gap for gap in gaps if gap.keys["recipe"] == "none" and gap.keys["test"] in tests]
    for who, side in (("none", bases), (None, tuned)):
        yield from _means({**keys, "train": who}, side, resampling)
        yield from _changes({**keys, "train": who}, side, resampling)


def _at_home(gap: Difference) -> bool:
    """Whether the test is in the domain of the fine-tuning task."""
    return task.in_domain(gap.keys["train"], gap.keys["test"])


def _slopes(keys: dict[str, Any], gaps: Sequence[Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Difference]] = {}
    for gap in gaps:
        lines.setdefault(tuple(gap.keys[key] for key in LINE), []).append(gap)
    for group_keys, points in lines.items():
        if len(points) >= 3:
            facts = {
                "estimator": "slope",
                "n": len(points),
                **trend(curve(points, resampling)).figures(resampling.level),
            }
            yield {**keys, **dict(zip(LINE, group_keys, strict=True)), **facts}


def _changes(keys: dict[str, Any], gaps: Sequence[Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Change of the mean gap from the first step to the last."""
    for group_keys, line in places(gaps, PLACE):
        steps = sorted({gap.keys["step"] for gap in line})
        first, last = ({gap.pair: gap for gap in line if gap.keys["step"] == step} for step in (steps[0], steps[-1]))
        both = [Difference(last[pair], first[pair]) for pair in last if pair in first]
        row = {**group_keys, **keys, "estimator": "last_minus_first", "n": len(both)}
        if {change.pair for change in both} != {gap.pair for gap in line}:
            yield {**row, "value": None}
        elif len(steps) > 1:
            yield mean_over(row, both, resampling)


def _means(keys: dict[str, Any], gaps: Sequence[Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Mean gap at each step over all tests, or all pairs of fine-tuning task and test."""
    for group_keys, line in places(gaps, PLACE):
        wanted = {gap.pair for gap in line}
        for step in sorted({gap.keys["step"] for gap in line}):
            at_step = [gap for gap in line if gap.keys["step"] == step]
            row = {**group_keys, **keys, "step": step, "estimator": "difference_of_means", "n": len(at_step)}
            if {gap.pair for gap in at_step} != wanted:
                yield {**row, "value": None}
            else:
                yield mean_over(row, at_step, resampling)
