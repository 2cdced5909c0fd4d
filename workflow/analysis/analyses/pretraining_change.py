"""What pre-training has changed: the score at the last step minus that at the first, of bases, tuned models and gains."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workflow.analysis.analyses.learning import in_domain, own_first
from workflow.analysis.curves import curve, trend
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


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each curve, of a model line on a test (`level`) and of tuned minus base (`gain`); step is null.

    - `last_minus_first`: the last step's value minus the first's, compared row by row where rows are known. Its interval is
      over rows and seeds; n counts rows. It is about these two checkpoints: what others of the run would have scored
      is not in its interval.
    - `slope`: of the straight line over steps, for 100,000 steps, with the scatter between steps in its interval (`curves`);
      n counts steps, three at least.
    - Without test: means over the tests that models are tuned for (as `learning` has it), in the group `base_does_not_rise` over
      tests whose untouched base is not significantly better at its last step than at its first, in `base_rises` over the others.
      `last_minus_first` is that of the tuned models, `gain_at_last_step` tuned minus base there. The interval is over
      tests; n counts pairs of task and test. In the group `base_does_not_rise_minus_base_rises` the second is
      compared between both groups, by the spread of tests alone where scores are reported without errors; n is the smaller one's.
    """
    rows = [*_rows("level", evidence.levels, how), *_rows("gain", evidence.changes, how)]
    return [*rows, *_by_base(evidence, how)]


def _lines(points: Sequence[Level | Difference]) -> dict[tuple[Any, ...], list[Level | Difference]]:
    """Points by what they share along pre-training, in the order of their steps."""
    lines: dict[tuple[Any, ...], list[Level | Difference]] = {}
    for point in sorted(points, key=lambda point: point.keys["step"]):
        lines.setdefault(tuple(point.keys[key] for key in LINE), []).append(point)
    return lines


def _rows(group: str, points: Sequence[Level | Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    for place, own in _lines(points).items():
        keys = {"group": group, **dict(zip(LINE, place, strict=True))}
        if len(own) > 1:
            change = Difference(own[-1], own[0])
            yield estimate(keys, change, how.level, estimator="last_minus_first", n=change.n)
        if len(own) > 2:
            yield {**keys, "estimator": "slope", "n": len(own), **trend(curve(own, how)).figures(how.level)}


def _by_base(evidence: Evidence, how: Resampling) -> Iterator[dict[str, Any]]:
    """Means of tuned models, apart for tests on which the untouched base rises and for those on which it does not."""
    lines = [own for own in _lines(evidence.levels).values() if len(own) > 1]
    bases = {_base(own[0]): Difference(own[-1], own[0]) for own in lines if own[0].keys["recipe"] == "none"}
    rising = {place for place, change in bases.items() if _rises(change, how)}
    wanted = own_first([change for change in evidence.changes if in_domain(change)])
    gains: dict[Any, Any] = {
        place: own for place, own in _lines(wanted).items() if len(own) > 1 and _base(own[0]) in bases
    }
    tuned = [Difference(own[-1].tuned, own[0].tuned) for own in gains.values()]
    for place, own in places(tuned, PLACE):
        yield from _means({**place, "estimator": "last_minus_first"}, own, rising, how, compared=False)
    for place, own in places([own[-1] for own in gains.values()], PLACE):
        yield from _means({**place, "estimator": "gain_at_last_step"}, own, rising, how, compared=True)


def _means(
    keys: dict[str, Any], own: Sequence[Difference], rising: Collection[Any], how: Resampling, compared: bool
) -> Iterator[dict[str, Any]]:
    """The mean of each group, and the difference of both where they are compared."""
    groups = {name: [one for one in own if (_base(one) in rising) == wanted] for name, wanted in SORTS.items()}
    there = {name: found for name, found in groups.items() if found}
    for name, found in there.items():
        yield mean_over({**keys, "group": name, "n": len(found)}, found, replace(how, seed=how.seed + 1 + SORTS[name]))
    if compared and len(there) == 2 and all(_known(found) for found in there.values()):
        (first, over), (second, under) = (_centred(there[name], how) for name in (FLAT, RISING))
        n = min(len(found) for found in there.values())
        limits = limits_apart(*(common_limits(there[name]) for name in (FLAT, RISING)))
        yield estimated({**keys, "group": COMPARED, "n": n}, first - second, apart(over, under), how.level, limits)


def _known(found: Sequence[Difference]) -> bool:
    """Whether the uncertainty of a mean is known: by its rows, or by the spread of several tests."""
    return len(found) > 1 or found[0].uncertain


def _centred(found: Sequence[Difference], how: Resampling) -> tuple[float, Margins]:
    """A mean over tests with its margins; where some have no known error, those of the tests' spread alone."""
    if all(one.uncertain for one in found):
        return centred(found, how)
    values = np.array([one.value for one in found])
    return float(values.mean()), normal(float(values.std(ddof=1)) / len(values) ** 0.5, len(values) - 1)


def _base(change: Level | Difference) -> tuple[Any, ...]:
    """What a tuned model's curve shares with its base's."""
    return tuple(change.keys[key] for key in BASE)


def _rises(change: Difference, how: Resampling) -> bool:
    """Whether a base is significantly better at its last step; where its uncertainty is unknown, whether it is better at all."""
    level: Any = change.first
    value = -change.value if level.better == "lower" else change.value
    p_value = tested(change.value, change.margins) if change.uncertain else None
    return value > 0 and (p_value is None or p_value < 1 - how.level)
