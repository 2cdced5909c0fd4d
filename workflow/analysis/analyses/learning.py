"""Which tests are learned in pre-training, which in tuning: found from the scores, not told (arXiv 2408.06663, Figure 6).

What is assumed: the untouched base follows a straight line over the logarithm of training steps, and so does what
tuning adds to it; steps scatter around their lines by the training's own noise, independently and equally, besides the
sampling of rows and seeds (`curves`). Scores that jump between the shares of classes as a base's constant answer changes
are such scatter and make no rise. A curve that is not straight on this axis scatters the more, so that less is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow import task
from workflow.analysis.curves import Estimate, Line, curve, line, progress
from workflow.analysis.evidence import Change, Difference, Evidence, Level, common_limits, estimate
from workflow.statistics import Resampling, Values, student_width

PLACE = ["family", "suite", "test", "test_format", "shots"]
TUNING = ["train", "format", "recipe"]
STEPS = 3  # the fewest that show a scatter

# Whether the base learns it, whether tuning adds to it.
GROUPS = {
    (True, False): "learned_in_pretraining",
    (False, True): "learned_in_tuning",
    (True, True): "learned_in_both",
    (False, False): "not_learned",
}


@dataclass(frozen=True)
class Claim:
    """That a sum of a line's level and slope lies above a bound; it holds where the interval of that level does.

    terms: how often level and slope enter the sum.
    """

    line: Line
    terms: tuple[float, float]
    bound: float
    level: float

    @property
    def estimate(self) -> Estimate:
        """How far the sum lies above the bound."""
        found = self.line.combination(*self.terms)
        return Estimate(found.value - self.bound, found.error, found.freedom)

    def holds(self, values: Values) -> NDArray[np.bool_]:
        """Whether it holds for curves with this one's noise, shape (curves, steps)."""
        found = self.estimate
        away = values @ (np.array(self.terms) @ self.line.weights) - self.bound
        return (away > student_width(self.level, found.freedom) * found.error) & found.known


@dataclass(frozen=True)
class Claims:
    """What is claimed of a test: that the base rises and ends above its baseline, that tuning adds to it somewhere.

    gains: for each tuning that it adds at the first step, at the centre of all steps, and at the last.
    """

    rise: Claim
    end: Claim | None
    gains: list[tuple[Claim, ...]]


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """Rows for each test and way of testing; n counts steps, step is null.

    A test is learned in pre-training where the base's line rises from the first step to the last and ends above the
    baseline; in tuning where the line of tuned minus base is above 0 at its first step, its centre or its last step, for one
    of the tunings in the test's domain (tuning on instructions, which are of no domain, counts where there is no other).
    Each by an interval of the study's level, corrected for the number of these places. The baseline is chance; where that
    is not known (generated text, imported multiple choice) it is the first step.

    Where no tuning is in the test's domain, `gain_by_tuning` is null, and the group says of pre-training alone.

    - `share_of_resamples`, one row for each of the four groups: how often it is found when rows and seeds are resampled
      and the scatter between steps is drawn anew. The group with the largest share is the one that the test is given.
    - `rise_over_pretraining`: the untouched base's score at the last step minus that at the first, with resampled rows.
    - `rise_of_line`: the same of the line, which the group is decided by; it need not end in a score that there can be.
    - `end_above_baseline` and `gain_by_tuning` (the largest), likewise of lines. All are in points of the metric, in the
      rows of that group; null where not known. However small what is learned is: these say it.

    With fewer than three steps nothing is found: `rise_over_pretraining` is null and without a group.
    """
    chances = _chances(evidence)
    gains = [change for change in evidence.changes if in_domain(change)]
    bases = _grouped([level for level in evidence.levels if level.keys["recipe"] == "none"], PLACE)
    tunings = _grouped(own_first(gains), PLACE)
    return [
        row
        for place, levels in bases.items()
        for row in _rows(dict(zip(PLACE, place, strict=True)), levels, tunings.get(place, []), chances.get(place), how)
    ]


def _grouped(points: Sequence[Any], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Any]]:
    """Levels or differences by keys."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for point in points:
        groups.setdefault(tuple(point.keys[key] for key in keys), []).append(point)
    return groups


def _chances(evidence: Evidence) -> dict[tuple[Any, ...], float]:
    """How often a uniform guess is right: by the rows' own choices where rows are known, else by the task's label words."""
    known = evidence.chances(PLACE)
    labels = {level.keys["test"]: len(task.labels(level.keys["test"])) for level in evidence.levels}
    places = {tuple(level.keys[key] for key in PLACE): labels[level.keys["test"]] for level in evidence.levels}
    stated = evidence.reported[evidence.reported["metric"] == "chance"]
    imported = {tuple(row[key] for key in PLACE): row["value"] for row in stated.to_dict("records")}
    return {place: 1 / count for place, count in places.items() if count} | imported | known


def in_domain(change: Difference) -> bool:
    """Whether a test is of the domain tuned on, or the tuning of no domain."""
    train, test = change.keys["train"], change.keys["test"]
    return _on_instructions(change) or task.domain(train) == task.domain(test)


def _on_instructions(change: Difference) -> bool:
    return task.kind(change.keys["train"]) == "messages"


def own_first(gains: Sequence[Change]) -> list[Change]:
    """Changes by tuning on instructions are left out where another tuning is in the test's domain."""
    own = {tuple(change.keys[key] for key in PLACE) for change in gains if not _on_instructions(change)}
    return [c for c in gains if not _on_instructions(c) or tuple(c.keys[key] for key in PLACE) not in own]


def _rows(
    keys: dict[str, Any], levels: Sequence[Level], gains: Sequence[Change], chance: float | None, how: Resampling
) -> Iterator[dict[str, Any]]:
    """The rows of one test."""
    keys = {**keys, "n": len(levels)}
    if len(levels) < STEPS:
        yield {**keys, "estimator": "rise_over_pretraining", "value": None}
        return
    claims = _claims(levels, gains, chance, how)
    shares = _shares(claims, how)
    for group, share in shares.items():
        yield {**keys, "group": group, "estimator": "share_of_resamples", "value": share}
    keys |= {"group": max(shares, key=lambda group: shares[group])}
    yield _change(keys | {"estimator": "rise_over_pretraining"}, levels, how)
    yield {**keys, "estimator": "rise_of_line", **_single(claims.rise)}
    yield {**keys, "estimator": "end_above_baseline", **(_single(claims.end) if claims.end else {"value": None})}
    gained = [claim for places in claims.gains for claim in places]
    yield {**keys, "estimator": "gain_by_tuning", **_cut(_largest(gained, how.level), gains)}


def _change(keys: dict[str, Any], levels: Sequence[Level], how: Resampling) -> dict[str, Any]:
    """The last step's score minus the first's."""
    ordered = sorted(levels, key=lambda level: level.keys["step"])
    change = Difference(ordered[-1], ordered[0])
    return estimate(keys, change, how.level)


def _claims(levels: Sequence[Level], gains: Sequence[Change], chance: float | None, how: Resampling) -> Claims:
    """The claims about one test, with their evidence."""
    base = _line(levels, how)
    first, _, last = _places(base)
    rise = Claim(base, (0.0, last - first), 0.0, how.level)
    end = None if chance is None else Claim(base, (1.0, last), chance, how.level)
    lines = [_line(own, how) for own in _grouped(gains, TUNING).values() if len(own) >= STEPS]
    places = [(own, _places(own)) for own in lines]
    level = 1 - (1 - how.level) / max(1, sum(len(at) for _, at in places))
    gained = [tuple(Claim(own, (1.0, place), 0.0, level) for place in at) for own, at in places]
    return Claims(rise, end, gained)


def _line(points: Sequence[Level | Difference], how: Resampling) -> Line:
    found = curve(points, how)
    return line(found, progress(found.steps))


def _places(line: Line) -> tuple[float, ...]:
    """First place on the axis, centre of all, last. The line is known best at its centre, and highest at one of its ends."""
    places = progress(line.curve.steps)
    return float(places[0]), float(places.mean()), float(places[-1])


def _shares(claims: Claims, how: Resampling) -> dict[str, float]:
    """How often each group is found in resamples."""
    generator = np.random.default_rng([how.seed, len(claims.rise.line.curve.steps)])
    bases = _drawn(claims.rise.line, generator)
    learned = claims.rise.holds(bases) & (claims.end.holds(bases) if claims.end else True)
    added = np.zeros(len(bases), dtype=bool)
    for places in claims.gains:
        gains = _drawn(places[0].line, generator)
        added |= np.any([claim.holds(gains) for claim in places], axis=0)
    return {name: float(np.mean((learned == base) & (added == tuning))) for (base, tuning), name in GROUPS.items()}


def _drawn(line: Line, generator: np.random.Generator) -> Values:
    """A line's curve in each resample, the scatter between steps drawn anew: shape (resamples, steps)."""
    draws = line.curve.draws.T
    return draws + np.sqrt(line.unexplained) * generator.standard_normal(draws.shape)


def _single(claim: Claim) -> dict[str, Any]:
    """A claim's estimate with its interval."""
    return claim.estimate.figures(claim.level)


def _cut(figures: dict[str, Any], gains: Sequence[Change]) -> dict[str, Any]:
    """The interval of a gain without the values that no gain can have; the line itself may leave them."""
    if not gains or figures.get("low") is None:
        return figures
    low, high = common_limits(gains)
    value = figures["value"]
    return figures | {"low": max(figures["low"], min(low, value)), "high": min(figures["high"], max(high, value))}


def _largest(claims: Sequence[Claim], level: float) -> dict[str, Any]:
    """The largest of several estimates: each may have been it by chance, so the lower end and the p-value are corrected.

    Both are null where one of the estimates has no known error.
    """
    if not claims:
        return {"value": None, "n": 0}
    found = [claim.estimate for claim in claims]
    figures: dict[str, Any] = {
        "value": max(own.value for own in found),
        "n": max(len(claim.line.curve.steps) for claim in claims),
    }
    if not all(own.known for own in found):
        return figures
    return figures | {
        "low": max(own.bounds(claim.level)[0] for own, claim in zip(found, claims, strict=True)),
        "high": max(own.bounds(level)[1] for own in found),
        "p_value": min(
            [1.0, *(len(found) * own.p_value for own in found if own.value > 0 and own.p_value is not None)]
        ),
    }
