"""How often intervals hold the truth and tests call a difference where there is none: simulations with known truth.

Run from the repository's root: `PYTHONPATH=. python benchmarks/intervals.py --repetitions 1000`; `--only NAME` for one table.
Prints Markdown tables with the percentile bootstrap, which intervals were made by before, beside the intervals in closed form.
Intervals are for 95 %; behind each share stands its binomial standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy

from workflow.analysis.best_base import chances
from workflow.analysis.evidence import Change, Difference, Reported, Sample, mean_over, seeded
from workflow.evaluation import metrics
from workflow.forecasting.forecast_accuracy import _jointly
from workflow.forecasting.pairs import credit, differences, resampled_weights
from workflow.statistics import Resampling, Values, bounded, tested
from workflow.storage.markdown import markdown

HOW = Resampling(500, 0.95, 0)
MODEL = {"family": "f", "step": 1, "suite": "s", "test": "mnli", "test_format": "default", "shots": 0}
TUNED = MODEL | {"train": "mnli", "format": "default", "recipe": "full"}
BASE = MODEL | {"train": "none", "format": "none", "recipe": "none"}
Rows = Iterator[dict[str, object]]


def share(hits: list[bool]) -> str:
    """A share in percent with its binomial standard error."""
    p = float(np.mean(hits))
    return f"{100 * p:.1f} ± {100 * (p * (1 - p) / len(hits)) ** 0.5:.1f}"


def holds(ends: tuple[float, float], truth: float) -> bool:
    """Whether an interval holds the truth, but for rounding."""
    return ends[0] - 1e-9 <= truth <= ends[1] + 1e-9


def percentile(values: Values, seed: int) -> tuple[float, float]:
    """The percentile bootstrap's interval of a mean."""
    return HOW.bounds(Resampling(HOW.resamples, HOW.level, seed).means(values))


def around(value: float, margins: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval."""
    return value - margins[0], value + margins[1]


def scores(repetitions: int, rng: np.random.Generator) -> Rows:
    """Means of one value a row: accuracies, ROUGE-like and F1-like values"""
    kinds: dict[str, tuple[Callable[[int], Values], float]] = {
        f"accuracy {p}": (lambda n, p=p: (rng.random(n) < p).astype(float), p) for p in (0.995, 0.98, 0.9, 0.5)
    }
    kinds |= {
        "ROUGE around .3": (lambda n: rng.beta(6, 14, n), 0.3),
        "mostly 0, else around .4": (lambda n: np.where(rng.random(n) < 0.05, rng.beta(4, 6, n), 0.0), 0.02),
        "1 in 50 rows, else around .01": (lambda n: np.where(rng.random(n) < 0.02, 1.0, rng.beta(1, 99, n)), 0.0298),
        "F1: 94 % of rows 1": (lambda n: np.where(rng.random(n) < 0.94, 1.0, rng.beta(4, 4, n)), 0.97),
    }
    for n in (40, 150):
        for name, (drawn, truth) in kinds.items():
            old, new = [], []
            for seed in range(repetitions):
                values = drawn(n)
                old.append(holds(percentile(values, seed), truth))
                new.append(holds(around(values.mean(), bounded(values)(0.95)), truth))
            yield {"rows": n, "values": name, "bootstrap": share(old), "closed form": share(new)}


def paired(repetitions: int, rng: np.random.Generator) -> Rows:
    """Differences of two accuracies on the same rows; agreement: 0 as unlike as can be, 1 as alike"""
    for n in (40, 150):
        for p, q, alike in ((0.98, 0.98, 0.5), (0.98, 0.9, 0.5), (0.5, 0.5, 0.8), (0.3, 0.35, 1.0), (0.7, 0.7, 0.0)):
            both = max(0, p + q - 1) + alike * (min(p, q) - max(0, p + q - 1))
            old, new, called = [], [], []
            for seed in range(repetitions):
                cell = rng.choice(4, n, p=[both, p - both, q - both, 1 - p - q + both])
                first, second = (np.isin(cell, own).astype(float) for own in ((0, 1), (0, 2)))
                found = Difference(Sample(TUNED, first[None]), Sample(BASE, second[None]))
                old.append(holds(percentile(first - second, seed), p - q))
                ends = around(found.value, found.margins(0.95))
                new.append(holds(ends, p - q))
                called.append(not holds(ends, 0))
            row = {"rows": n, "accuracies": f"{p}, {q}", "agreement": alike}
            yield row | {"bootstrap": share(old), "closed form": share(new), "called": share(called)}


def macro_f1(repetitions: int, rng: np.random.Generator) -> Rows:
    """Macro-F1 of confusion tables: gold in rows, prediction in columns"""
    tables = {
        "accuracy .97, two labels": [[0.485, 0.015], [0.015, 0.485]],
        "accuracy .97, three labels": (np.eye(3) * 0.97 / 3 + (1 - np.eye(3)) * 0.03 / 6).tolist(),
        "nearly constant, two labels": [[0.48, 0.02], [0.47, 0.03]],
        "nearly constant, three labels": [[0.32, 0.01, 0], [0.31, 0.02, 0], [0.31, 0.01, 0.02]],
        "nearly constant, 90 % one label": [[0.88, 0.02], [0.09, 0.01]],
        "accuracy .7": [[0.4, 0.1], [0.2, 0.3]],
    }
    for n in (40, 150):
        for name, table in tables.items():
            cells = np.array(table)
            k = len(cells)
            truth = float((2 * np.diag(cells) / (cells.sum(0) + cells.sum(1))).mean())
            old, new = [], []
            for seed in range(repetitions):
                drawn = rng.choice(k * k, n, p=cells.ravel() / cells.sum())
                logprobs = [list(row) for row in np.eye(k)[drawn % k]]
                rows = pd.DataFrame({"gold": drawn // k, "logprobs": logprobs, "choices": [list("abc"[:k])] * n})
                rows = rows.assign(output="", protocol="sound")
                found = metrics.score(rows, "macro_f1", HOW)
                assert found is not None
                new.append(holds((found.low, found.high), truth))
                if seed < repetitions // 2:
                    weights = next(Resampling(300, 0.95, seed).weights(n))
                    old.append(holds(HOW.bounds(metrics.macro_f1(rows, weights)), truth))
            yield {"rows": n, "predictions": name, "bootstrap": share(old), "closed form": share(new)}


def alike(repetitions: int, rng: np.random.Generator) -> Rows:
    """Losses on few rows that differ by .1 this way or that, as often as not: how often a difference is called significant"""
    for n in (2, 3, 5, 8):
        old, new, unknown = [], [], []
        for _ in range(repetitions):
            rows = 0.1 * rng.choice([-1.0, 1.0], n)
            levels = (Sample(keys, 2 + own[None], better="lower") for keys, own in ((TUNED, rows), (BASE, 0 * rows)))
            p_value = tested(rows.mean(), Difference(*levels).margins)
            unknown.append(p_value is None)
            new.append(p_value is not None and p_value < 0.05)
            old.append(p_value is None or p_value < 0.05)
        yield {
            "rows": n,
            "error of 0 taken for certainty": share(old),
            "called": share(new),
            "no interval": share(unknown),
        }


def tests(repetitions: int, rng: np.random.Generator) -> Rows:
    """Means over few tests or pairs, which differ by .1 and are known to .03 each; of a true mean of 0"""
    for n in (2, 3, 5, 10):
        old, new = [], []
        for seed in range(repetitions):
            values = rng.normal(0, 0.1, n) + rng.normal(0, 0.03, n)
            own = [{**TUNED, "test": f"t{i}"} for i in range(n)]
            parts = [Change(Reported(key, v, 0.03), Reported({**BASE, "test": key["test"]}, 0.0, 0.0, 9, 2)) for key, v in zip(own, values, strict=True)]  # fmt: skip # noqa: E501
            row = mean_over({"n": n}, parts, Resampling(HOW.resamples, 0.95, seed))
            old.append(holds(percentile(values, seed), 0))
            new.append(holds((row["low"], row["high"]), 0))
        yield {"tests": n, "bootstrap": share(old), "Student's t": share(new)}


def seeds(repetitions: int, rng: np.random.Generator) -> Rows:
    """Gains of tuned models, whose seeds differ by .03, over their bases on 400 rows; no true gain. Six bases in the study"""
    for own, others in ((1, 0), (1, 2), (2, 0), (2, 2), (3, 3)):
        old, new = [], []
        for seed in range(repetitions):
            models = [own] + [others] * 5 if others else [own]
            levels = [
                Sample(
                    {**TUNED, "step": step}, (rng.random((k, 400)) < 0.6 + rng.normal(0, 0.03, (k, 1))).astype(float)
                )
                for step, k in enumerate(models)
            ]
            base = Sample({**BASE, "step": 0}, (rng.random((1, 400)) < 0.6).astype(float))
            how = Resampling(HOW.resamples, 0.95, seed)
            gain = Change(seeded(levels)[0], base)
            old.append(holds(how.bounds(gain.resampled(how)), 0))
            new.append(holds(around(gain.value, gain.margins(0.95)), 0))
        yield {
            "seeds": own,
            "seeds of five other bases": others,
            "rows alone / pigeonhole": share(old),
            "with luck": share(new),
        }


def best(repetitions: int, rng: np.random.Generator) -> Rows:
    """What is said of the base with the highest score, and how often it is the best; scores are off by 1.2 points"""
    for bases, spread in ((6, 0.005), (6, 0.02), (6, 0.05), (2, 0.005), (20, 0.02)):
        before, said, so = [], [], []
        for _ in range(repetitions):
            truth = rng.normal(0.5, spread, bases)
            values, errors = truth + rng.normal(0, 0.012, bases), rng.normal(0, 0.012, (bases, HOW.resamples))
            top = values.argmax()
            before.append(((values[:, None] + errors).argmax(axis=0) == top).mean())
            said.append(chances(values, errors, errors)[top])
            so.append(bool(truth.argmax() == top))
        bands = [np.array(so)[(np.array(said) >= low) & (np.array(said) < low + 0.2)] for low in (0.2, 0.4, 0.6, 0.8)]
        curve = {f"so, said {low:.1f} to {low + 0.2:.1f}": f"{own.mean():.2f} ({len(own)})" if len(own) > 9 else "–" for low, own in zip((0.2, 0.4, 0.6, 0.8), bands, strict=True)}  # fmt: skip # noqa: E501
        figures = {"said before": f"{np.mean(before):.2f}", "said": f"{np.mean(said):.2f}", "so": share(so)}
        yield {"bases": bases, "spread": spread} | figures | curve


def forecasters(repetitions: int, rng: np.random.Generator) -> Rows:
    """The best of eleven useless indicators: how often its interval leaves out .5"""
    for bases in (10, 25, 50):
        old, new = [], []
        for seed in range(repetitions):
            preferences, difference = differences(rng.normal(size=(11, bases))), differences(rng.normal(size=bases))
            earned, _ = credit(preferences, difference, "half")
            weights = resampled_weights(np.arange(bases), Resampling(300, 0.95, seed))
            values, drawn = earned.mean(axis=1), (weights @ earned.T) / weights.sum(axis=1)[:, None]
            top = values.argmax()
            joint = _jointly(values - 0.5, drawn - 0.5, np.ones(11, dtype=bool), bases, 0.95)[top]
            old.append(not holds(tuple(HOW.columns(drawn)[:, top]), 0.5))
            new.append(not holds((joint[0] or 0.0, joint[1] or 0.0), 0))
        yield {"bases": bases, "own interval": share(old), "joint interval": share(new)}


def contrasts(repetitions: int, rng: np.random.Generator) -> Rows:
    """Two recipes tuned from the same base, 200 rows a test: intervals of a true difference of .05 and of none. Means over tests
    whose differences spread by .03, and single tests; seeds that differ by .015, alone or with five other bases, or not at all"""
    studies = [(1, 1, 0.0, 0), (3, 1, 0.0, 0), (6, 1, 0.0, 0), (1, 1, 0.015, 0), (6, 1, 0.015, 0)]
    studies += [(1, 3, 0.015, 0), (1, 3, 0.015, 5), (3, 3, 0.015, 5), (6, 3, 0.015, 5)]
    for study in studies:
        for accuracy in (0.6, 0.9):
            figures: dict[str, object] = dict(zip(("tests", "seeds", "luck", "other bases"), study, strict=True))
            figures["accuracy"] = accuracy
            for truth in (0.05, 0.0):
                found = [_contrast(accuracy, truth, study, rng) for _ in range(repetitions)]
                figures[f"holds {truth}"] = share([holds((row["low"], row["high"]), truth) for row in found])
                figures["found" if truth else "called"] = share([row["p_value"] < 0.05 for row in found])
            yield figures


def _contrast(
    accuracy: float, truth: float, study: tuple[int, int, float, int], rng: np.random.Generator
) -> dict[str, float]:
    """The row of the mean over tests. study: numbers of tests and of seeds, spread between seeds, number of other bases."""
    count, own, luck, others = study
    levels = []
    for test in range(count):
        keys = {**TUNED, "train": f"t{test}", "test": f"t{test}"}
        gain = truth + (rng.normal(0, 0.03) if count > 1 else 0)
        for step in range(1 + others):
            hard = rng.normal(size=200)  # rows are easy or hard for both recipes
            for recipe, mean in (("full", accuracy + gain), ("lora", accuracy)):
                shares = np.clip(mean + rng.normal(0, luck, (own, 1)), 0.005, 0.995)
                right = 0.5**0.5 * (hard + rng.normal(size=(own, 200))) < scipy.special.ndtri(shares)
                levels.append(Sample(keys | {"recipe": recipe, "step": step}, right.astype(float)))
    last = [level for level in seeded(levels) if level.keys["step"] == others]
    pairs = [Difference(full, lora) for full, lora in zip(last[::2], last[1::2], strict=True)]
    return mean_over({"n": count}, pairs, HOW)


TABLES = (scores, paired, macro_f1, alike, tests, seeds, contrasts, best, forecasters)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--only", choices=[made.__name__ for made in TABLES])
    chosen = parser.parse_args()
    for made in TABLES:
        if chosen.only in (None, made.__name__):
            rows = pd.DataFrame([*made(chosen.repetitions, np.random.default_rng(0))])
            print(f"\n{made.__doc__}\n\n{markdown(rows)}", flush=True)
