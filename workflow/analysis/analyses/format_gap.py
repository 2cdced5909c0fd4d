"""Level in the default format minus level in another, of bases and tuned models (arXiv 2408.06663, Figures 2 and 14)."""

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


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each other format, in the group `default_minus_<format>`; `test_format` is null, since two are compared.

    - `difference_of_means` of each model and test: the same rows are compared; its interval is over rows and seeds, n counts
      rows.
    - `difference_of_means` without test: the mean over the tests of the domain tuned on, at each step, for tuned models
      together (train null) and for bases on the same tests (train `none`); the interval is over tests, or pairs of task and
      test; n counts them. Null where one that other steps have is missing.
    - `last_minus_first` without test (step null): how that mean has changed from the first step to the last, likewise.
    - `slope` of each model line and test (step null): how the gap changes over pre-training, points per 100,000 steps,
      with what `curves` says of its uncertainty; n counts steps, three at least.

    Errors: ValueError when a model was scored on other rows in one of the formats.
    """
    return [row for name, gaps in sorted(_gaps(evidence).items()) for row in _rows({"group": name}, gaps, how)]


def _gaps(evidence: Evidence) -> dict[str, list[Difference]]:
    """Each model's level in the default format beside that in each other format: group -> differences."""

    def place(keys: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(keys[key] for key in PAIR_KEYS if key != "test_format")

    defaults = {place(level.keys): level for level in evidence.levels if level.keys["test_format"] == DEFAULT}
    gaps: dict[str, list[Difference]] = {}
    for level in evidence.levels:
        other = level.keys["test_format"]
        if other == DEFAULT or place(level.keys) not in defaults:
            continue
        gap = Difference(defaults[place(level.keys)], level)
        if not gap.aligned:
            raise ValueError(f"scored on other rows in the format '{other}' than in '{DEFAULT}': {level.keys}")
        gaps.setdefault(f"{DEFAULT}_minus_{other}", []).append(gap)
    return gaps


def _rows(keys: dict[str, Any], gaps: Sequence[Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    gaps = seeded(gaps)
    for gap in gaps:
        facts = {"estimator": "difference_of_means", "n": gap.n, "test_format": None}
        yield estimate({**gap.keys, **keys}, gap, how.level, **facts)
    yield from _slopes(keys, gaps, how)
    tuned = [gap for gap in gaps if gap.keys["recipe"] != "none" and _at_home(gap)]
    tests = {gap.keys["test"] for gap in tuned}
    bases = [gap for gap in gaps if gap.keys["recipe"] == "none" and gap.keys["test"] in tests]
    for who, own in (("none", bases), (None, tuned)):
        yield from _means({**keys, "train": who}, own, how)
        yield from _changes({**keys, "train": who}, own, how)


def _at_home(gap: Difference) -> bool:
    """Whether the test is of the domain tuned on."""
    return task.domain(gap.keys["train"]) == task.domain(gap.keys["test"])


def _slopes(keys: dict[str, Any], gaps: Sequence[Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[Any, ...], list[Difference]] = {}
    for gap in gaps:
        lines.setdefault(tuple(gap.keys[key] for key in LINE), []).append(gap)
    for place, points in lines.items():
        if len(points) >= 3:
            facts = {"estimator": "slope", "n": len(points), **trend(curve(points, how)).figures(how.level)}
            yield {**keys, **dict(zip(LINE, place, strict=True)), **facts}


def _changes(keys: dict[str, Any], gaps: Sequence[Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    """How the mean gap changes from the first step to the last."""
    for place, line in places(gaps, PLACE):
        steps = sorted({gap.keys["step"] for gap in line})
        first, last = ({gap.pair: gap for gap in line if gap.keys["step"] == step} for step in (steps[0], steps[-1]))
        both = [Difference(last[pair], first[pair]) for pair in last if pair in first]
        row = {**place, **keys, "estimator": "last_minus_first", "n": len(both)}
        if {change.pair for change in both} != {gap.pair for gap in line}:
            yield {**row, "value": None}
        elif len(steps) > 1:
            yield mean_over(row, both, how)


def _means(keys: dict[str, Any], gaps: Sequence[Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    """The mean gap at each step over all tests that occur, or pairs of task and test."""
    for place, line in places(gaps, PLACE):
        wanted = {gap.pair for gap in line}
        for step in sorted({gap.keys["step"] for gap in line}):
            own = [gap for gap in line if gap.keys["step"] == step]
            row = {**place, **keys, "step": step, "estimator": "difference_of_means", "n": len(own)}
            if {gap.pair for gap in own} != wanted:
                yield {**row, "value": None}
            else:
                yield mean_over(row, own, how)
