"""Change over pre-training: score at the last step minus score at the first, for bases, fine-tuned models and gains."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workflow.analysis.analyses.learning import in_domain, own_first
from workflow.analysis.curves import better, curve, trend
from workflow.analysis.evidence import (
    PAIR_KEYS,
    Difference,
    Evidence,
    Level,
    centred,
    common_limits,
    estimate,
    estimated,
    mean_over,
    places,
)
from workflow.statistics import Margins, Resampling, apart, limits_apart, normal, tested

LINE = [key for key in PAIR_KEYS if key != "step"]
BASE = [key for key in LINE if key not in ("train", "format", "recipe")]
PLACE = ["family", "format", "suite", "test_format", "shots"]
FLAT, RISING = "base_does_not_rise", "base_rises"
SORTS = {FLAT: False, RISING: True}  # whether the base rises
COMPARED = f"{FLAT}_minus_{RISING}"

SAVED_STEPS_ONLY = True


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each curve, of a model line on a test (`level`) and of fine-tuned minus base (`gain`); step is null.

    - `last_minus_first`: the last step's value minus the first's, compared row by row if rows are known. The interval is
      over rows and seeds; n is the number of rows. It is about these two checkpoints: the scatter between checkpoints is not
      included.
    - `slope` of the straight line over steps, per 100,000 steps, with the scatter between steps in the interval (`curves`);
      n is the number of steps, at least three.
    - Without test: means over the tests in the domain of the fine-tuning task (as in `learning`). The group
      `base_does_not_rise` has the tests whose untouched base is not significantly better at its last step than at its first,
      `base_rises` the others. `last_minus_first` is that of the fine-tuned models, `gain_at_last_step` is fine-tuned minus
      base. The interval is over tests; n is the number of pairs of task and test. The group
      `base_does_not_rise_minus_base_rises` compares `gain_at_last_step` between both groups, from the spread of tests only
      if scores are reported without errors; n is that of the smaller group. Metrics of which more is not better are left out.
    """
    rows = [*_rows("level", evidence.levels, resampling), *_rows("gain", evidence.changes, resampling)]
    return [*rows, *_by_base(evidence, resampling)]


def _lines(points: Sequence[Level | Difference]) -> dict[tuple[Any, ...], list[Level | Difference]]:
    """Points grouped by everything except their step, in the order of steps."""
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in sorted(points, key=lambda point: point.keys["step"]):
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    return lines


def _rows(group: str, points: Sequence[Level | Difference], resampling: Resampling) -> Iterator[dict[str, Any]]:
    for line_keys, points_of_line in _lines(points).items():
        keys = {"group": group, **dict(zip(LINE, line_keys, strict=True))}
        if len(points_of_line) > 1:
            change = Difference(points_of_line[-1], points_of_line[0])
            yield estimate(keys, change, resampling.level, estimator="last_minus_first", n=change.n)
        if len(points_of_line) > 2:
            yield {
                **keys,
                "estimator": "slope",
                "n": len(points_of_line),
                **trend(curve(points_of_line, resampling)).figures(resampling.level),
            }


def _by_base(evidence: Evidence, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Means over fine-tuned models: over tests on which the untouched base rises, and over those on which it does not."""
    lines = [line for line in _lines(evidence.levels).values() if len(line) > 1]
    bases = {_base(line[0]): Difference(line[-1], line[0]) for line in lines if line[0].keys["recipe"] == "none"}
    rising = {group_keys for group_keys, change in bases.items() if _rises(change, resampling)}
    wanted = own_first([one for one in evidence.changes if in_domain(one) and better(one) == "higher"])
    gains: dict[Any, Any] = {
        group_keys: line for group_keys, line in _lines(wanted).items() if len(line) > 1 and _base(line[0]) in bases
    }
    tuned = [Difference(line[-1].tuned, line[0].tuned) for line in gains.values()]
    for group_keys, line in places(tuned, PLACE):
        yield from _means({**group_keys, "estimator": "last_minus_first"}, line, rising, resampling, compared=False)
    for group_keys, line in places([line[-1] for line in gains.values()], PLACE):
        yield from _means({**group_keys, "estimator": "gain_at_last_step"}, line, rising, resampling, compared=True)


def _means(
    keys: dict[str, Any],
    differences: Sequence[Difference],
    rising: Collection[Any],
    resampling: Resampling,
    compared: bool,
) -> Iterator[dict[str, Any]]:
    """The mean of each group, and the difference of both if they are compared."""
    groups = {name: [one for one in differences if (_base(one) in rising) == wanted] for name, wanted in SORTS.items()}
    not_empty = {name: members for name, members in groups.items() if members}
    for name, members in not_empty.items():
        yield mean_over(
            {**keys, "group": name, "n": len(members)},
            members,
            replace(resampling, seed=resampling.seed + 1 + SORTS[name]),
        )
    if compared and len(not_empty) == 2 and all(_known(members) for members in not_empty.values()):
        (first, over), (second, under) = (_centred(not_empty[name], resampling) for name in (FLAT, RISING))
        n = min(len(members) for members in not_empty.values())
        limits = limits_apart(*(common_limits(not_empty[name]) for name in (FLAT, RISING)))
        yield estimated(
            {**keys, "group": COMPARED, "n": n}, first - second, apart(over, under), resampling.level, limits
        )


def _known(differences: Sequence[Difference]) -> bool:
    """Whether the uncertainty of a mean is known, from its rows or from the spread of several tests."""
    return len(differences) > 1 or differences[0].uncertain


def _centred(differences: Sequence[Difference], resampling: Resampling) -> tuple[float, Margins]:
    """A mean over tests with its margins. If some tests have no known error, the margins come from the spread of tests only."""
    if all(one.uncertain for one in differences):
        return centred(differences, resampling)
    values = np.array([one.value for one in differences])
    return float(values.mean()), normal(float(values.std(ddof=1)) / len(values) ** 0.5, len(values) - 1)


def _base(change: Level | Difference) -> tuple[Any, ...]:
    """The keys that a fine-tuned model's curve shares with its base's."""
    return tuple(change.keys[key] for key in BASE)


def _rises(change: Difference, resampling: Resampling) -> bool:
    """Whether a base is significantly better at its last step than at its first; if its uncertainty is unknown, whether it
    is better.
    """
    level: Any = change.first
    value = -change.value if level.better == "lower" else change.value
    p_value = tested(change.value, change.margins) if change.uncertain else None
    return value > 0 and (p_value is None or p_value < 1 - resampling.level)
