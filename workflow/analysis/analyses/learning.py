"""Groups tests by when they are learned, in pre-training or in fine-tuning, from their scores (arXiv 2408.06663, Figure 6).

Assumptions: the score of the untouched base is a straight line over the logarithm of training steps, and so is the gain by
fine-tuning. Steps scatter around their lines independently and equally, in addition to the sampling of rows and seeds
(`curves`). Jumps between the shares of classes, when a base's constant answer changes, count as scatter, not as a rise. A
curve that is not straight on this axis scatters more, so that less is significant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow import task
from workflow.analysis.curves import Estimate, Line, better, improvement, line, progress
from workflow.analysis.evidence import Change, Difference, Evidence, Level, common_limits, estimate
from workflow.statistics import Resampling, Values, student_width

PLACE = ["family", "suite", "test", "test_format", "shots"]
TUNING = ["train", "format", "recipe"]
STEPS = 3  # fewest steps with a scatter

# (the base learns it, fine-tuning adds to it) -> group
GROUPS = {
    (True, False): "learned_in_pretraining",
    (False, True): "learned_in_tuning",
    (True, True): "learned_in_both",
    (False, False): "not_learned",
}

SAVED_STEPS_ONLY = True


@dataclass(frozen=True)
class Claim:
    """The claim that a weighted sum of a line's level and slope exceeds a bound. It holds if the confidence interval of the
    sum does.

    terms: weights of level and slope.
    """

    line: Line
    terms: tuple[float, float]
    bound: float
    level: float

    @property
    def estimate(self) -> Estimate:
        """Excess of the sum over the bound."""
        combination = self.line.combination(*self.terms)
        return Estimate(combination.value - self.bound, combination.error, combination.freedom)

    def holds(self, values: Values) -> NDArray[np.bool_]:
        """Whether the claim holds for curves with this curve's noise, shape (curves, steps)."""
        estimate = self.estimate
        away = values @ (np.array(self.terms) @ self.line.weights) - self.bound
        return (away > student_width(self.level, estimate.freedom) * estimate.error) & estimate.known


@dataclass(frozen=True)
class Claims:
    """The claims about a test: the base rises, it ends above its baseline, fine-tuning adds to it.

    gains: for each fine-tuning, that it adds at the first step, at the centre of all steps, and at the last.
    """

    rise: Claim
    end: Claim | None
    gains: list[tuple[Claim, ...]]


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """Rows for each test and way of testing; n is the number of steps, step is null.

    A test is learned in pre-training if the base's line rises from the first step to the last and ends above the baseline.
    It is learned in fine-tuning if the line of fine-tuned minus base is above 0 at its first step, its centre or its last
    step, for one of the fine-tunings in the test's domain. Instruction tuning has no domain and counts only if there is no
    other. Both are decided by intervals of the study's level, corrected for the number of these comparisons. The baseline is
    chance; if chance is unknown (generated text, imported multiple choice), it is the first step. If no fine-tuning is in
    the test's domain, `gain_by_tuning` is null, and the group is about pre-training only.

    - `share_of_resamples`, one row for each of the four groups: the share of resamples in which a test is in the group, with
      resampled rows and seeds and newly drawn scatter between steps. The test belongs to the group with the largest share.
    - `rise_over_pretraining`: the untouched base's score at the last step minus that at the first, with resampled rows.
    - `rise_of_line`: the same for the fitted line, which decides the group; the line may end outside the possible scores.
    - `end_above_baseline` and `gain_by_tuning` (the largest), also from lines.

    All are in points of the metric, in the rows of that group; null if unknown. If less of the metric is better
    (perplexity), the lines and the last three estimators change their sign; metrics without a better direction have no rows. A
    rise or a gain can be significant and small: these values show its size. With fewer than three steps,
    `rise_over_pretraining` is null and has no group.
    """
    chances = _chances(evidence)
    gains = [change for change in evidence.changes if in_domain(change)]
    bases = _grouped([level for level in evidence.levels if level.keys["recipe"] == "none"], PLACE)
    tunings = _grouped(own_first(gains), PLACE)
    return [
        row
        for group_keys, levels in bases.items()
        if better(levels[0])
        for row in _rows(
            dict(zip(PLACE, group_keys, strict=True)),
            levels,
            tunings.get(group_keys, []),
            chances.get(group_keys),
            resampling,
        )
    ]


def _grouped(points: Sequence[Any], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Any]]:
    """Levels or differences grouped by keys."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for point in points:
        groups.setdefault(tuple(point.keys[key] for key in keys), []).append(point)
    return groups


def _chances(evidence: Evidence) -> dict[tuple[Any, ...], float]:
    """Accuracy of a uniform guess: by the choices of the rows if they are known, else by the task's label words."""
    known = evidence.chances(PLACE)
    labels = {level.keys["test"]: len(task.labels(level.keys["test"])) for level in evidence.levels}
    places = {tuple(level.keys[key] for key in PLACE): labels[level.keys["test"]] for level in evidence.levels}
    stated = evidence.reported[evidence.reported["metric"] == "chance"]
    imported = {tuple(row[key] for key in PLACE): row["value"] for row in stated.to_dict("records")}
    return {group_keys: 1 / count for group_keys, count in places.items() if count} | imported | known


def in_domain(change: Difference) -> bool:
    """Whether a test is in the domain of the fine-tuning task, or the fine-tuning has no domain."""
    return task.counts_as_in_domain(change.keys["train"], change.keys["test"])


def own_first(gains: Sequence[Change]) -> list[Change]:
    """Changes without those by instruction tuning if another fine-tuning is in the test's domain."""
    on_instructions = {id(change) for change in gains if task.on_instructions(change.keys["train"])}
    covered = {tuple(change.keys[key] for key in PLACE) for change in gains if id(change) not in on_instructions}
    return [c for c in gains if id(c) not in on_instructions or tuple(c.keys[key] for key in PLACE) not in covered]


def _rows(
    keys: dict[str, Any], levels: Sequence[Level], gains: Sequence[Change], chance: float | None, resampling: Resampling
) -> Iterator[dict[str, Any]]:
    """The rows of one test."""
    keys = {**keys, "n": len(levels)}
    if len(levels) < STEPS:
        yield {**keys, "estimator": "rise_over_pretraining", "value": None}
        return
    claims = _claims(levels, gains, chance, resampling)
    shares = _shares(claims, resampling)
    for group, share in shares.items():
        yield {**keys, "group": group, "estimator": "share_of_resamples", "value": share}
    keys |= {"group": max(shares, key=lambda group: shares[group])}
    yield _change(keys | {"estimator": "rise_over_pretraining"}, levels, resampling)
    yield {**keys, "estimator": "rise_of_line", **_single(claims.rise)}
    yield {**keys, "estimator": "end_above_baseline", **(_single(claims.end) if claims.end else {"value": None})}
    gained = [claim for places in claims.gains for claim in places]
    yield {**keys, "estimator": "gain_by_tuning", **_cut(_largest(gained, resampling.level), gains)}


def _change(keys: dict[str, Any], levels: Sequence[Level], resampling: Resampling) -> dict[str, Any]:
    """Score at the last step minus score at the first."""
    ordered = sorted(levels, key=lambda level: level.keys["step"])
    change = Difference(ordered[-1], ordered[0])
    return estimate(keys, change, resampling.level)


def _claims(levels: Sequence[Level], gains: Sequence[Change], chance: float | None, resampling: Resampling) -> Claims:
    """The claims about one test, with their curves."""
    base = _line(levels, resampling)
    first, _, last = _places(base)
    rise = Claim(base, (0.0, last - first), 0.0, resampling.level)
    end = None if chance is None or better(levels[0]) == "lower" else Claim(base, (1.0, last), chance, resampling.level)
    lines = [_line(line, resampling) for line in _grouped(gains, TUNING).values() if len(line) >= STEPS]
    places = [(line, _places(line)) for line in lines]
    level = 1 - (1 - resampling.level) / max(1, sum(len(at) for _, at in places))
    gained = [tuple(Claim(line, (1.0, position), 0.0, level) for position in at) for line, at in places]
    return Claims(rise, end, gained)


def _line(points: Sequence[Level | Difference], resampling: Resampling) -> Line:
    fitted = improvement(points, resampling)
    assert fitted is not None  # `analyse` leaves out other metrics
    return line(fitted, progress(fitted.steps))


def _places(line: Line) -> tuple[float, ...]:
    """First position on the axis, centre of all, and last.

    The line is most precise at its centre and highest at one of its ends.
    """
    places = progress(line.curve.steps)
    return float(places[0]), float(places.mean()), float(places[-1])


def _shares(claims: Claims, resampling: Resampling) -> dict[str, float]:
    """Share of resamples in which each group is found."""
    generator = np.random.default_rng([resampling.seed, len(claims.rise.line.curve.steps)])
    bases = _drawn(claims.rise.line, generator)
    learned = claims.rise.holds(bases) & (claims.end.holds(bases) if claims.end else True)
    added = np.zeros(len(bases), dtype=bool)
    for places in claims.gains:
        gains = _drawn(places[0].line, generator)
        added |= np.any([claim.holds(gains) for claim in places], axis=0)
    return {name: float(np.mean((learned == base) & (added == tuning))) for (base, tuning), name in GROUPS.items()}


def _drawn(line: Line, generator: np.random.Generator) -> Values:
    """A line's curve in each resample, with newly drawn scatter between steps: shape (resamples, steps)."""
    draws = line.curve.draws.T
    return draws + np.sqrt(line.unexplained) * generator.standard_normal(draws.shape)


def _single(claim: Claim) -> dict[str, Any]:
    """The estimate of a claim with its interval."""
    return claim.estimate.figures(claim.level)


def _cut(figures: dict[str, Any], gains: Sequence[Change]) -> dict[str, Any]:
    """The interval of a gain without the values that no gain can have; the line itself may leave them."""
    if not gains or figures.get("low") is None:
        return figures
    low, high = common_limits(gains)  # the same for both signs
    value = figures["value"]
    return figures | {"low": max(figures["low"], min(low, value)), "high": min(figures["high"], max(high, value))}


def _largest(claims: Sequence[Claim], level: float) -> dict[str, Any]:
    """The largest of several estimates.

    Each could be the largest by chance, so the lower end and the p-value are corrected for the choice. Both are null if the
    error of one estimate is unknown.
    """
    if not claims:
        return {"value": None, "n": 0}
    estimates = [claim.estimate for claim in claims]
    figures: dict[str, Any] = {
        "value": max(estimate.value for estimate in estimates),
        "n": max(len(claim.line.curve.steps) for claim in claims),
    }
    if not all(estimate.known for estimate in estimates):
        return figures
    return figures | {
        "low": max(estimate.bounds(claim.level)[0] for estimate, claim in zip(estimates, claims, strict=True)),
        "high": max(estimate.bounds(level)[1] for estimate in estimates),
        "p_value": min(
            [
                1.0,
                *(
                    len(estimates) * estimate.p_value
                    for estimate in estimates
                    if estimate.value > 0 and estimate.p_value is not None
                ),
            ]
        ),
    }
