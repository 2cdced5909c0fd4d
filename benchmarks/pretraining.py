"""Series along pre-training: what is said of them against what is so, on simulated curves and on released ones.

Run from the repository's root: `PYTHONPATH=. python benchmarks/pretraining.py [--released FOLDER]`. Prints Markdown tables, with
binomial standard errors. Parts:

- `change`: how often the interval of last minus first holds the truth, beside that of a straight line's rise.
- `turning`: how often a step is named on smooth laws (none is there) and on bends; whether what thinned series name agrees.
- `declines`: how often one is called significant on curves that level off, and found where there is one.
- `forecasts`: coverage of the 80 % interval and error beside both baselines, on simulated runs.
- `--released FOLDER`: declines and forecasts of held-out last steps on a folder of result files (`released_series`); with
  `--part turning` the turning steps of its series, whole and thinned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from coverage import markdown

from benchmarks import released_series
from workflow.analysis import extrapolation, laws
from workflow.analysis.analyses import turning_point
from workflow.analysis.analyses.extrapolation import margins
from workflow.analysis.curves import Curve, line, progress
from workflow.analysis.declines import comparable, decline
from workflow.statistics import Resampling, Values, holm, tested

STEPS = {
    "8, as published": np.array([1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020], dtype=float),
    "15, even": np.array([3000, *range(13_000, 144_000, 10_000)], dtype=float),
    "27, from 0": np.array([0, *(2.0**n for n in range(10)), 1000, 3000, *range(13_000, 144_000, 10_000)], dtype=float),
}
TURN = 0.35  # of the steps
ROWS = 0.01  # standard error of rows
SCATTERS = (0.005, 0.02)
CUTS = (1 / 1.25, 1 / 1.5, 1 / 2)
PARTS_OF_MEANS = ("hendrycksTest", "blimp_", "crows_pairs_")
DECLINES = ("lambada_openai", "sciq")
TURNS = {"declining from .3": 0.3, "declining from .5": 0.5, "declining from .7": 0.7}  # of the steps
KINDS = ("laws of learning", "saturating", "sigmoid", *TURNS, "random walk")
AHEAD = {"1.1 to 1.3": (1.1, 1.3), "1.3 to 1.65": (1.3, 1.65), "1.65 to 2.5": (1.65, 2.5)}


def truths(steps: Values) -> dict[str, Values]:
    """Curves of known shape, by name."""
    u = laws.scaled(steps, steps[-1])
    return {
        "saturating exponential": 0.3 + 0.4 * (1 - np.exp(-u / 0.2)),
        "power law": 0.8 - 0.1 * u**-0.3,
        "log-sigmoid": 0.3 + 0.4 / (1 + np.exp(-1.5 * (np.log(u) - np.log(0.15)))),
        "logarithm": 0.3 + 0.05 * np.log(u / u[0]),
        "bend": 0.3 + 0.4 * np.minimum(u, TURN) / TURN + 0.02 * np.maximum(u - TURN, 0),
    }


def curve(steps: Values, truth: Values, scatter: float, how: Resampling, rng: np.random.Generator) -> Curve:
    """A curve off its truth by rows, whose error is known, and by scatter between steps, which is not."""
    values = truth + rng.normal(0, ROWS, len(steps)) + rng.normal(0, scatter, len(steps))
    return Curve(steps, values, values[:, None] + rng.normal(0, ROWS, (len(steps), how.resamples)))


def share(hits: Sequence[Any]) -> str:
    """A share in per cent with its binomial standard error."""
    if not len(hits):
        return "–"
    mean = float(np.mean(hits))
    return f"{100 * mean:.0f} ± {100 * np.sqrt(mean * (1 - mean) / len(hits)):.0f} (n = {len(hits)})"


def change(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Intervals for the difference of the two checkpoints' true scores, whose rows are known and which are as they are."""
    rng = np.random.default_rng(how.seed)
    for name, steps in STEPS.items():
        for law, truth in truths(steps).items():
            held = []
            for _ in range(repetitions):
                own = curve(steps, truth, 0.0, how, rng)
                low, high = how.bounds(own.draws[-1] - own.draws[0])
                axis = progress(steps)
                rise = line(own, axis).combination(0, float(np.ptp(axis))).bounds(how.level)
                wanted = truth[-1] - truth[0]
                held.append((low <= wanted <= high, rise[0] <= wanted <= rise[1]))
            last, straight = zip(*held, strict=True)
            yield {"steps": name, "curve": law, "last minus first": share(last), "rise of the line": share(straight)}


def turning(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Steps named, and of those named in a thinned series too how many agree within their intervals."""
    rng = np.random.default_rng(how.seed)
    for name, steps in STEPS.items():
        for law, truth in truths(steps).items():
            for scatter in SCATTERS:
                before, named, held, agree = [], [], [], []
                for _ in range(repetitions):
                    own = curve(steps, truth, scatter, how, rng)
                    rows = {row["estimator"]: row for row in turning_point.of_curve(own, how)}
                    row = rows["turning_step"]
                    before.append(rows["knot"]["p_value"] < 1 - how.level)
                    named.append(row["value"] is not None)
                    if named[-1]:
                        held.append(row["low"] <= TURN * steps[-1] <= row["high"])
                        agree += list(_agreements(own, row, how))
                yield {
                    "steps": name,
                    "curve": law,
                    "scatter": f"{scatter}",
                    "straight line refused": share(before),
                    "step named": share(named),
                    "holds the truth": share(held) if law == "bend" else "–",
                    "thinned agree": share(agree),
                }


def _agreements(own: Curve, row: dict[str, Any], how: Resampling) -> Iterator[bool]:
    """For every thinned series in which a step is named: whether its interval and that of the whole series have a common step."""
    for other in _thinned(own, how):
        if other["value"] is not None:
            yield other["low"] <= row["high"] and row["low"] <= other["high"]


def _thinned(own: Curve, how: Resampling) -> Iterator[dict[str, Any]]:
    """What is said of the turning step from every second step, without the first third of steps and without the last."""
    places = np.arange(len(own.steps))
    for kept in (places[::2], places[len(places) // 3 :], places[: -len(places) // 3]):
        part = Curve(own.steps[kept], own.values[kept], own.draws[kept])
        if turning_point.bendable(part):
            yield next(iter(turning_point.of_curve(part, how)))


def declines(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Curves that are flat, that rise with the logarithm of steps, and that fall by .05 in their last third."""
    rng = np.random.default_rng(how.seed)
    for name, steps in STEPS.items():
        u = laws.scaled(steps, steps[-1])
        fall = 0.05 * (np.arange(len(steps)) >= 2 * len(steps) // 3)
        for kind, truth in {
            "flat": 0 * u,
            "rising": 0.03 * np.log(u),
            "falling by .05": 0.03 * np.log(u) - fall,
        }.items():
            for scatter in (0.0, *SCATTERS, 0.04):
                found = [
                    decline(curve(steps, truth, scatter, how, rng), replace(how, seed=how.seed + seed))
                    for seed in range(repetitions)
                ]
                yield {
                    "steps": name,
                    "curve": kind,
                    "scatter": f"{scatter}",
                    "p < .05": share([one.p_value < 0.05 for one in found]),
                    "p < .005": share([one.p_value < 0.005 for one in found]),
                }


def forecasts(how: Resampling, repetitions: int) -> Iterator[dict[str, str]]:
    """Runs like PolyPythias: tests of a run share laws of learning whose numbers differ, checkpoints scatter, some runs fall."""
    rng = np.random.default_rng(how.seed)
    for name, steps in STEPS.items():
        for kind in KINDS:
            cases = []
            for run in range(repetitions):
                values = np.array([_run(steps, kind, rng) for _ in range(10)])
                cases += [case | {"run": run} for case in _forecast(steps, values, how.level)]
            yield {"steps": name, "runs": kind, **_summary(cases)}


def _run(steps: Values, kind: str, rng: np.random.Generator) -> Values:
    """One test of a simulated run."""
    u = laws.scaled(steps, steps[-1])
    start, rise = rng.uniform(0.2, 0.5), rng.uniform(0.0, 0.4)
    if kind == "saturating":
        law = 1 - np.exp(-u / rng.uniform(0.05, 0.4))
    elif kind == "sigmoid":
        law = 1 / (1 + np.exp(-rng.uniform(1.5, 4) * (np.log(u) - np.log(rng.uniform(0.1, 0.8)))))
    else:
        law = truths(steps)[rng.choice(list(truths(steps))[:4])]
        law = (law - law[0]) / np.ptp(law)
    values = start + rise * law
    if kind in TURNS:
        values = values - rng.uniform(0, 0.1) * np.maximum(u - TURNS[kind], 0) / (1 - TURNS[kind])
    scatter = rng.uniform(0.003, 0.02)
    if kind == "random walk":
        return values[0] + rng.normal(0, scatter, len(steps)).cumsum()
    return values + rng.normal(0, scatter, len(steps))


def _forecast(steps: Values, values: Values, level: float) -> Iterator[dict[str, Any]]:
    """Held-out steps of a run, cut off where the last step is ahead by the usual factors."""
    for cut in range(6, len(steps)):
        if steps[cut - 1] * 3.2 < steps[-1]:
            continue
        for later in range(cut, len(steps)):
            there, known = steps[:cut], values[:, :cut]
            factor = float(steps[later] / there[-1])
            span = next((name for name, (low, high) in AHEAD.items() if low <= factor < high), None)
            found = extrapolation.forecast(there, known, float(steps[later]), 0.8) if span else None
            if span and found is None:
                yield {"span": span, "better": False, "said": False}
            elif span:
                off = values[:, later] - found.values
                last = values[:, later] - known[:, -1]
                axis = np.log(laws.scaled(there, there[-1]))
                slope, level_ = np.polyfit(axis, known.T, 1)
                straight = values[:, later] - (level_ + slope * np.log(factor))
                sides = {"above": found.low <= values[:, later], "below": values[:, later] <= found.high}
                sides |= {"inside": sides["above"] & sides["below"], "width": found.high - found.low}
                squares = {"own": np.mean(off**2), "last": np.mean(last**2), "line": np.mean(straight**2)}
                better = found.p_value < 1 - level
                said = better and found.fallen >= 1 - 0.8
                called = _called(found, known[:, -1], level)
                right = (np.sign(last) == np.sign(found.values - known[:, -1]))[called]
                yield {
                    "span": span, "better": better, "said": said, "called": called, "right": right, **sides, **squares
                }  # fmt: skip


def _called(found: extrapolation.Forecast, last: Values, level: float) -> Values:
    """Which of a run's forecast changes are significant (Holm), as the analysis and the findings have it."""
    p_values = [
        tested(float(value - before), margins(float(value - low), float(high - value)))
        for value, before, low, high in zip(found.values, last, found.low, found.high, strict=True)
    ]
    return holm(np.array([1.0 if p_value is None else p_value for p_value in p_values])) < 1 - level


def of_runs(cases: Sequence[dict[str, Any]], key: str) -> str:
    """A share in per cent over the tests of all cases, with its standard error over runs, which are n: tests and cuts of one run
    are not independent (ratio estimator, Cochran 1977, equation 6.13)."""
    sums = {}
    for case in cases:
        hits, count = sums.get(case["run"], (0.0, 0))
        sums[case["run"]] = hits + float(np.sum(case[key])), count + int(np.size(case[key]))
    hits, counts = np.array(list(sums.values()), dtype=float).reshape(-1, 2).T
    if not counts.sum():
        return "–"
    ratio, n = hits.sum() / counts.sum(), len(counts)
    error = np.sqrt(n / max(1, n - 1) * np.sum((hits - ratio * counts) ** 2)) / counts.sum() if n > 1 else np.nan
    return f"{100 * ratio:.0f} ± {100 * error:.0f} (n = {n})" if n > 1 else f"{100 * ratio:.0f} (one run)"


def _summary(cases: Sequence[dict[str, Any]]) -> dict[str, str]:
    """How often something is forecast, its coverage, and its error beside both baselines'; and how often runs that have turned
    down, of which nothing is forecast, would have been forecast."""
    result = {}
    for name, key in (("without the rule for turned runs", "better"), ("forecast", "said")):
        made = [case for case in cases if case[key]]
        result[name] = of_runs(cases, key)
        for part, inside in (
            ("80 % interval holds", "inside"),
            ("is not below it", "above"),
            ("is not above it", "below"),
        ):
            result[f"{name}: {part}"] = of_runs(made, inside)
    for name in ("last", "line"):
        ratio = np.sqrt(sum(case["own"] for case in made) / sum(case[name] for case in made)) if made else np.nan
        result[f"error / {name}"] = f"{ratio:.2f}"
    result["median width"] = f"{np.median(np.concatenate([case['width'] for case in made])):.3f}" if made else "–"
    result["called changes"] = of_runs(made, "called")
    result["of the right sign"] = of_runs(made, "right")
    return result


def released(how: Resampling, folder: Path) -> Iterator[dict[str, str]]:
    """Each series: forecasts of its held-out last steps from all its tests, and which declines are significant among them."""
    found = released_series.read(folder)
    for series in sorted({series for series, _ in found}):
        points = {test: own for (name, test), own in found.items() if name == series and len(own) >= 10}
        if len(points) < 10:
            continue
        steps = released_series.numbers(next(iter(points.values())))[0]
        values = np.array([released_series.numbers(own)[1] for own in points.values() if len(own) == len(steps)])
        curves = {test: released_series.released(own, how, family=series, test=test) for test, own in points.items()}
        whole = {test: own for test, own in curves.items() if not test.startswith(PARTS_OF_MEANS) and comparable(own)}
        p_values = {test: decline(own, how).p_value for test, own in whole.items()}
        fallen = [test for test, p in zip(p_values, holm(np.array(list(p_values.values()))), strict=True) if p < 0.05]
        single = ", ".join(f"{test} {p_values[test]:.4f}" for test in DECLINES if test in p_values)
        for span in AHEAD:
            cases = [case | {"run": series} for case in _forecast(steps, values, how.level) if case["span"] == span]
            yield {
                "series": series.rpartition("/")[2],
                "steps ahead": span,
                **_summary(cases),
                "declines (Holm over tests, without parts of means)": ", ".join(fallen) or "none",
                "p": single,
            }


def released_turning(how: Resampling, folder: Path) -> Iterator[dict[str, str]]:
    """Each series: the curves with a turning step, those with one in a thinned series, and whether both agree."""
    found = released_series.read(folder)
    for series in sorted({series for series, _ in found}):
        curves = [
            released_series.released(own, how, family=series, test=test)
            for (name, test), own in found.items()
            if name == series and len(own) >= 10 and not test.startswith(PARTS_OF_MEANS)
        ]
        curves = [own for own in curves if turning_point.bendable(own)]
        rows = [next(iter(turning_point.of_curve(own, how))) for own in curves]
        others = [[row for row in _thinned(own, how) if row["value"] is not None] for own in curves]
        pairs = [(row, other) for row, parts in zip(rows, others, strict=True) for other in parts]
        agree = [
            row["value"] is not None and other["low"] <= row["high"] and row["low"] <= other["high"]
            for row, other in pairs
        ]
        yield {
            "series": series.rpartition("/")[2],
            "curves": str(len(curves)),
            "step named": str(sum(row["value"] is not None for row in rows)),
            "named in a thinned series": f"{len(pairs)} of {3 * len(curves)}",
            "of them agree": f"{sum(agree)}",
        }


PARTS = {"change": change, "turning": turning, "declines": declines, "forecasts": forecasts}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100, help="curves for each line of a table (default: 100)")
    parser.add_argument("--resamples", type=int, default=400, help="resamples within each (default: 400)")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="table to print (default: all)")
    parser.add_argument(
        "--released", type=Path, help="folder of result files of lm-evaluation-harness: its table alone"
    )
    wanted = parser.parse_args()
    how = Resampling(wanted.resamples, 0.95, 0)
    if wanted.released:
        table = released_turning if wanted.part == ["turning"] else released
        print(markdown(list(table(how, wanted.released))), flush=True)
        return
    for name in wanted.part or PARTS:
        print(f"\n{name}, {wanted.repetitions} repetitions\n", flush=True)
        print(markdown(list(PARTS[name](how, wanted.repetitions))), flush=True)


if __name__ == "__main__":
    main()
