"""How often a base is called the best, and what a pick is said to lose, where the truth is known: simulated scores of bases.

Run from the repository's root: `PYTHONPATH=. python benchmarks/choosing.py`. Prints Markdown tables. A row is right where a
normal variable passes a threshold; the row has a part of it, and so have base and row, and seed and row. What a seed is worth
over all rows differs from base to base by training noise. One base may lead all others, which are equal.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from workflow.analysis import best_base, recommendation
from workflow.analysis.evidence import Sample
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.storage.markdown import markdown

SHARES = (0.4, 0.3, 0.3)  # of the variance of what decides a row: the row's own, that of base and row, of seed and row
LEVEL = 0.6  # of all bases but the one that leads
WAY = {"recipe": "full", "suite": "s", "test_format": "default", "shots": 0}
KEYS = {"family": "f", "train": "mini_facts", "format": "default", "test": "mini_facts", **WAY}
NOTHING = pd.DataFrame(columns=[*tables.ANALYSIS.names, "analysis"])


def simulated(
    bases: int, seeds: int, rows: int, lead: float, noise: float, rng: np.random.Generator, level: float = LEVEL
) -> list[Sample]:
    """Scores of bases by seed and row; the last base leads."""
    truth = np.full((bases, 1), level) + lead * (np.arange(bases) == bases - 1)[:, None]
    wanted = norm.ppf(np.clip(truth + rng.normal(0, noise, (bases, seeds)), 0.01, 0.99))
    shapes = [(1, 1, rows), (bases, 1, rows), (bases, seeds, rows)]
    decided = sum(share**0.5 * rng.normal(size=shape) for share, shape in zip(SHARES, shapes, strict=True))
    ids = tuple(map(str, range(rows)))
    values = (decided < wanted[..., None]).astype(float)
    return [Sample(KEYS | {"step": step}, own, ids) for step, own in enumerate(values)]


def answered(samples: Sequence[Sample], how: Resampling) -> dict[str, Any]:
    """Which base is called the best, None for none; of picking the first base the regret row."""
    asked = best_base.questions(samples, {}, how)
    picks = {"pick": {("f", step): -float(step) for step in range(len(samples))}}
    rows = [*recommendation.recommend(asked, picks, {}, NOTHING, 0.02, how)]
    answer = next(row for row in rows if row["topic"] == "answer")
    regret = next(row for row in rows if row.get("indicator") == "pick")
    called = f" tune f at step {answer['step']}," in answer["statement"]
    return {"called": answer["step"] if called else None, "regret": regret}


def calls(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """How often some base is called the best, and how often one that is not."""
    for bases, rows, noise, lead in itertools.product((2, 8), (300, 4000), (0.03,), (0.0, 0.05, 0.1)):
        line = {"bases": bases, "rows": rows, "training noise": noise, "lead": lead}
        for seeds in (1, 2, 3, 5):
            rng = np.random.default_rng([how.seed, bases, rows, seeds, int(1000 * lead)])
            found = [
                answered(simulated(bases, seeds, rows, lead, noise, rng), how)["called"] for _ in range(repetitions)
            ]
            right = np.mean([one == bases - 1 for one in found]) if lead else 0.0
            wrong = np.mean([one is not None for one in found]) - right
            line[f"{seeds} seeds"] = f"{right:.2f} right, {wrong:.2f} wrong" if lead else f"{wrong:.2f}"
        yield line


def regrets(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """What picking the first base is said to lose."""
    for lead, noise, seeds in itertools.product((0.0, 0.05, 0.1), (0.0, 0.03), (1, 3)):
        rng = np.random.default_rng([how.seed, seeds, int(1000 * lead), int(100 * noise)])
        found = pd.DataFrame(
            [answered(simulated(8, seeds, 400, lead, noise, rng), how)["regret"] for _ in range(repetitions)]
        )
        yield {
            "truth": lead,
            "training noise": noise,
            "seeds": seeds,
            "measured": f"{found['measured'].mean():.3f}",
            "corrected": f"{found['value'].mean():.3f}",
            "root mean square error": f"{_off(found['measured'], lead):.3f}, {_off(found['value'], lead):.3f}",
            "interval holds the truth": f"{((found['low'] <= lead) & (lead <= found['high'])).mean():.2f}",
            "interval leaves out 0": f"{(found['low'] > 0).mean():.2f}",
        }


def few_rows(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Coverage of the interval of what picking the first base loses, of 40 rows and three or six bases"""
    for bases, (level, lead) in itertools.product((3, 6), ((0.6, 0.0), (0.6, 0.1), (0.9, 0.1), (0.95, 0.04))):
        rng = np.random.default_rng([how.seed, bases, int(100 * level)])
        found = pd.DataFrame(
            [
                answered(simulated(bases, 1, 40, lead, 0.0, rng, level), replace(how, seed=seed))["regret"]
                for seed in range(repetitions)
            ]
        )
        held = float(((found["low"] <= lead + 1e-9) & (lead <= found["high"] + 1e-9)).mean())
        error = (held * (1 - held) / repetitions) ** 0.5
        yield {"bases": bases, "others": level, "lead": lead, "holds": f"{100 * held:.1f} ± {100 * error:.1f}"}


def _off(values: pd.Series, truth: float) -> float:
    """Root mean square error."""
    return float(((values - truth) ** 2).mean() ** 0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    chosen = parser.parse_args()
    how = Resampling(1000, 0.95, 0)
    for made in (calls, regrets, few_rows):
        print(f"\n{made.__doc__.splitlines()[0]}\n\n{markdown(pd.DataFrame([*made(how, chosen.repetitions)]))}")
