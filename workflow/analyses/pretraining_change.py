"""What pre-training has changed: the score at the last step minus that at the first, of bases, tuned models and gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow import task
from workflow.comparison import PAIR_KEYS, Difference, Evidence, Level, estimate, places, pooled
from workflow.curves import curve, trend
from workflow.statistics import Resampling, p_value

LINE = [key for key in PAIR_KEYS if key != "step"]
BASE = [key for key in LINE if key not in ("train", "format", "recipe")]
PLACE = ["family", "format", "suite", "test_format", "shots"]
FLAT, RISING = "tuned_where_base_does_not_rise", "tuned_where_base_rises"


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each curve, of a model line on a test (`level`) and of tuned minus base (`gain`); step is null.

    - `last_minus_first`: the last step's value minus the first's, compared row by row where rows are known. Rows, and seeds where
      there are several, are resampled; n counts rows. It is about these two checkpoints: what others of the run would have scored
      is not in its interval.
    - `slope`: of the straight line over steps, for 100,000 steps, with the scatter between steps in its interval (`curves`);
      n counts steps, three at least.
    - `last_minus_first` without test: the mean of tuned models on tests of the domain tuned on, in the group
      `tuned_where_base_does_not_rise` over those tests whose untouched base is not significantly better at its last step than at
      its first, in `tuned_where_base_rises` over the others. Tests are resampled, and rows and seeds within; n counts pairs.
    """
    rows = [*_rows("level", evidence.levels, how), *_rows("gain", evidence.changes, how)]
    ends = [Difference(own[-1], own[0]) for own in _lines(evidence.levels).values() if len(own) > 1]
    return [*rows, *_latent(ends, how)]


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
            drawn = change.resampled(how) if change.uncertain else None
            tested = None if drawn is None else p_value(drawn)
            facts = {"estimator": "last_minus_first", "n": change.n, "p_value": tested}
            yield estimate(keys, change.value, drawn, how, **facts)
        if len(own) > 2:
            found = trend(curve(own, how))
            low, high = found.bounds(how.level)
            facts = {"value": found.value, "low": low, "high": high, "p_value": found.p_value}
            yield {**keys, "estimator": "slope", "n": len(own), **facts}


def _latent(changes: Sequence[Difference], how: Resampling) -> Iterator[dict[str, Any]]:
    """Mean changes of tuned models, apart for tests on which the untouched base rises and for those on which it does not."""
    bases = {_base(change): change for change in changes if change.keys["recipe"] == "none"}
    rising = {place for place, change in bases.items() if _rises(change, how)}
    tuned = [change for change in changes if change.keys["recipe"] != "none" and _base(change) in bases]
    home = [change for change in tuned if task.domain(change.keys["train"]) == task.domain(change.keys["test"])]
    for place, own in places(home, PLACE):
        for group, wanted in ((FLAT, False), (RISING, True)):
            there = [change for change in own if (_base(change) in rising) == wanted]
            if there:
                value, drawn = pooled(there, how)
                keys = {"group": group, **place, "estimator": "last_minus_first", "n": len(there)}
                yield estimate(keys, value, drawn, how, p_value=p_value(drawn))


def _base(change: Difference) -> tuple[Any, ...]:
    """What a tuned model's curve shares with its base's."""
    return tuple(change.keys[key] for key in BASE)


def _rises(change: Difference, how: Resampling) -> bool:
    """Whether a base is significantly better at its last step."""
    return change.value > 0 and (not change.uncertain or p_value(change.resampled(how)) < 1 - how.level)
