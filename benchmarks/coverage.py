"""How often the intervals of curves hold the truth: simulated curves along pre-training, with known turning points and rises.

Run from the repository's root: `PYTHONPATH=. python benchmarks/coverage.py`. Prints Markdown tables. Each curve has the steps
of the published study or of the default one; its scores are off by their rows (known standard errors) and by what the
training does between two checkpoints (not known to the method). Intervals are for 95 %: with 500 repetitions, shares of
93 to 97 % are what chance makes of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workflow.analysis.analyses import learning, turning_point
from workflow.analysis.curves import PER, curve, knot, line, progress
from workflow.analysis.evidence import PAIR_KEYS, Evidence, Reported
from workflow.statistics import Resampling, Values
from workflow.storage import tables

STEPS = {
    "published": np.array([1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020], dtype=float),
    "mini": np.array([0, 300, 500, 700, 1000, 1500], dtype=float),
}
KNOTS = {"published": [10_000, 200_000, 342_000, 500_000], "mini": [150, 400, 700]}
NOISES = {"published": [(0.005, 0.0), (0.005, 0.02), (0.02, 0.02)], "mini": [(0.02, 0.0), (0.02, 0.04), (0.04, 0.02)]}
GROWTH = 0.35  # what a curve gains up to its turning point; beyond it, a tenth of that over as many steps as there are

# What of a test's base and of its tuning there is to find: rise of the base, gain by tuning.
LEARNING = {
    "learned_in_pretraining": (0.3, 0.0),
    "learned_in_tuning": (0.0, 0.3),
    "learned_in_both": (0.3, 0.3),
    "not_learned": (0.0, 0.0),
}
SHARES = np.array([0.354, 0.327, 0.319])  # of MNLI's classes: what a constant answer scores
KEYS = dict.fromkeys(PAIR_KEYS, "none") | {"suite": "s", "test": "mnli", "test_format": "default", "shots": 0}
TUNED = {"train": "mnli", "format": "default", "recipe": "full"}


def measured(
    truth: Values, noise: tuple[float, float], name: str, steps: Values, rng: np.random.Generator
) -> list[Reported]:
    """Scores along pre-training. noise: standard errors of rows and between checkpoints; name: tells repetitions apart."""
    item, scatter = noise
    values = truth + rng.normal(0, item, len(steps)) + rng.normal(0, scatter, len(steps))
    return [
        Reported(KEYS | {"family": name, "step": int(step)}, float(value), item)
        for step, value in zip(steps, values, strict=True)
    ]


def bent(steps: Values, at: float) -> tuple[Values, float, float]:
    """A curve with a turning point, its slopes before and after."""
    before, after = GROWTH / at * PER, GROWTH / 10 / np.ptp(steps) * PER
    return 0.3 + before * np.minimum(steps, at) / PER + after * np.maximum(steps - at, 0) / PER, before, after


def share(hits: Sequence[bool]) -> str:
    """A share in per cent."""
    return f"{100 * np.mean(hits):.1f}"


def turning_points(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Coverage of the turning step's confidence set, of the interval that is reported for it, and of both slopes.

    A slope before a knot that lies before the second step is the mean slope between both.
    """
    for name, steps in STEPS.items():
        for place, at in enumerate(KNOTS[name]):
            for number, noise in enumerate(NOISES[name]):
                truth, before, after = bent(steps, at)
                if at < steps[1]:
                    before = (truth[1] - truth[0]) / (steps[1] - steps[0]) * PER
                rng = np.random.default_rng([how.seed, len(steps), place, number])
                points = [measured(truth, noise, f"r{i}", steps, rng) for i in range(repetitions)]
                found = [knot(curve(own, how), how) for own in points]
                ends = [turning_point.observed(steps, one) for one in found]
                yield {
                    "steps": name,
                    "turning step": f"{at:,}",
                    "noise of rows, between": f"{noise[0]}, {noise[1]}",
                    "set": share([one.low <= at <= one.high for one in found]),
                    "interval": share([low <= at <= high for low, high in ends]),
                    "slope before": share([one.before.low <= before <= one.before.high for one in found]),
                    "slope after": share([one.after.low <= after <= one.after.high for one in found]),
                    "bend found": share([one.p_value < 1 - how.level for one in found]),
                    "whole range": share([low == steps[0] and high == steps[-1] for low, high in ends]),
                }


def straight(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Curves without a turning point, flat and rising: how often one is found all the same, and coverage of their slope."""
    for name, steps in STEPS.items():
        for number, noise in enumerate(NOISES[name]):
            for rise in (0.0, 0.3):
                rng = np.random.default_rng([how.seed, len(steps), 90, number])
                truth, slope = 0.3 + rise * steps / np.ptp(steps), rise / np.ptp(steps) * PER
                points = [measured(truth, noise, f"r{i}", steps, rng) for i in range(repetitions)]
                found = [knot(curve(own, how), how) for own in points]
                yield {
                    "steps": name,
                    "rise": f"{rise}",
                    "noise of rows, between": f"{noise[0]}, {noise[1]}",
                    "bend found": share([one.p_value < 1 - how.level for one in found]),
                    "slope after": share([one.after.low <= slope <= one.after.high for one in found]),
                }


def rises(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Coverage of the rise over pre-training, and how often one is found, for flat curves and for rising ones."""
    for name, steps in STEPS.items():
        axis = progress(steps)
        for number, noise in enumerate([(0.02, 0.0), (0.005, 0.02), (0.02, 0.02), (0.0, 0.05)]):
            for rise in (0.0, 0.1):
                rng = np.random.default_rng([how.seed, len(steps), 91, number])
                truth = 0.3 + rise * (axis - axis[0]) / np.ptp(axis)
                points = [curve(measured(truth, noise, f"r{i}", steps, rng), how) for i in range(repetitions)]
                bounds = [line(own, axis).combination(0, float(np.ptp(axis))).bounds(how.level) for own in points]
                yield {
                    "steps": name,
                    "rise": f"{rise}",
                    "noise of rows, between": f"{noise[0]}, {noise[1]}",
                    "coverage": share([low <= rise <= high for low, high in bounds]),
                    "found": share([low > 0 for low, _ in bounds]),
                }


def groupings(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """How often `learning` gives a test the right group. `jumps`: a base whose constant answer changes, never learned."""
    for name, steps in STEPS.items():
        for number, scatter in enumerate((0.0, 0.02, 0.05)):
            for group, (rise, gain) in {**LEARNING, "jumps": (0.0, 0.0)}.items():
                rng = np.random.default_rng([how.seed, len(steps), 92, number, round(100 * rise), round(100 * gain)])
                reported = []
                for i in range(repetitions):
                    constant = rng.choice(SHARES, len(steps)) if group == "jumps" else 1 / 3
                    base = constant + rise * (progress(steps) - progress(steps)[0]) / np.ptp(progress(steps))
                    noise = (0.005, scatter)
                    reported += rows(measured(base, (0.005, 0.0) if group == "jumps" else noise, f"r{i}", steps, rng))
                    reported += rows(measured(base + gain, noise, f"r{i}", steps, rng), TUNED)
                found = given(reported, how)
                right = "not_learned" if group == "jumps" else group
                others = found[found != right].value_counts()
                yield {
                    "steps": name,
                    "truth": group,
                    "noise between": f"{scatter}",
                    "right": share(list(found == right)),
                    "else": ", ".join(f"{one} {100 * count / len(found):.1f}" for one, count in others.items()),
                }


def rows(points: Sequence[Reported], keys: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Scores as imported ones."""
    return [{**point.keys, **(keys or {}), "value": point.value, "error": point.error, "n": None} for point in points]


def given(reported: list[dict[str, Any]], how: Resampling) -> pd.Series:
    """The group that `learning` gives to each repetition's test."""
    items = pd.DataFrame(columns=[*tables.KEYS.names, *tables.ITEMS.names])
    found = pd.DataFrame(learning.analyse(Evidence(items, pd.DataFrame(reported)), {}, how))
    return found.loc[found["estimator"] == "rise_over_pretraining", "group"]


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


PARTS = {"turning points": turning_points, "straight lines": straight, "rises": rises, "groups": groupings}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500, help="curves for each line of a table (default: 500)")
    parser.add_argument("--resamples", type=int, default=400, help="resamples within each (default: 400)")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="table to print (default: all)")
    wanted = parser.parse_args()
    how = Resampling(wanted.resamples, 0.95, 0)
    for name in wanted.part or PARTS:
        print(f"\n{name}, {wanted.repetitions} repetitions\n", flush=True)
        print(markdown(list(PARTS[name](how, wanted.repetitions))), flush=True)


if __name__ == "__main__":
    main()
