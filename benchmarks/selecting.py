"""How many fine-tunings it takes to find the best checkpoint: replays on tables whose scores are all known.

Run from the repository's root, each with `--amuro`, `--pythia` and `--study`, the folders of their tables:

1. `PYTHONPATH=. python benchmarks/selecting.py settings --out settings.jsonl --chosen chosen.json`: replays of each setting of
   the method on each table. For each source of tables it writes the setting that finds the best soonest on all other sources.
2. `… selecting.py replay --replays 200 --out replays.jsonl --chosen chosen.json`: each table is played with the setting that was
   chosen without its source; without `--chosen`, with the constants of the library.
3. `… selecting.py tables --out replays.jsonl` prints Markdown tables.
4. `… selecting.py budgets --share 0.4` plays whole selections on finished studies (`--study`), within a share of their price.

A replay that is in the file is not run again. Tables: the 50 published variants (three targets), released scores of OLMo-1B
(`--amuro`), released scores of Pythia (`--pythia`), and the cohorts of finished studies (`--study`).

Each replay has its own seed, which decides ties and random starts. `--noise none`: scores are as in the table, and the question
is which candidate the full grid would pick. `--noise grids`: each replay has a grid of its own, the table's scores with an error
of the size of the rows' standard error; the question is the same. `--noise rows`: the table's scores are the truth, and each
replay measures them with such an error; then even tuning all may miss the best.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import beta, norm

from workflow.choosing import acquisition, candidates, decision, surrogate
from workflow.choosing import race as measuring
from workflow.choosing.candidates import Candidates
from workflow.planning import config_checks, selecting
from workflow.released.readers import amuro_char
from workflow.storage.markdown import markdown
from workflow.study import grid, selection

MARGIN = 0.002  # a pick that loses no more is right
EPSILON, DELTA = 0.002, 0.05
SURE = 0.005  # no replay stops later than at this probability, so that it need not be followed further
PAIRED = 0.5  # share of the rows' variance that two models do not share: of paired tests about half
SMALL = 0.02  # a test whose scores differ less has no answer to find
VARIANTS = Path("studies/indicators-published/variants.csv")
FIELDS = ["objective", "mix", "lr", "domain_tag", "length_filter"]
TEST_ROWS = {
    "sft_cms": [3270, 1838, 10042, 1267, 500],
    "sft_rag": [3610, 11313, 7405, 12576],
    "sft_cbqa": [3610, 11313],
}


@dataclass(frozen=True)
class Table:
    """Candidates whose scores after tuning are known. columns: raw indicators; errors: of rows, of what candidates do not share;
    source: tables of one source are left out together."""

    name: str
    source: str
    candidates: Candidates
    truth: np.ndarray
    errors: np.ndarray
    columns: dict[str, np.ndarray]
    step: np.ndarray | None = None


# Tables


def variants() -> Iterator[Table]:
    """The 50 published variants."""
    rows = pd.read_csv(VARIANTS)
    indicators = {name: rows[name].to_numpy() for name in rows.columns[-5:]}
    known = candidates.described([str(name) for name in rows["id"]], indicators, {f: rows[f] for f in FIELDS})
    for target, sizes in TEST_ROWS.items():
        truth = rows[target].to_numpy() / 100
        error = np.sqrt(PAIRED * truth * (1 - truth) * np.sum(1 / np.array(sizes))) / len(sizes)
        yield Table(target, "variants", known, truth, error, indicators)


def amuro(folder: Path) -> Iterator[Table]:
    """OLMo-1B at eight steps, tuned on five tasks; indicators are the bases' scores on all tests with the same shots."""
    scores = pd.DataFrame(
        [
            vars_of(row["model_id"], row["eval dataset"])
            | {"value": row["Performance"], "error": row.get("std", np.nan)}
            for name in ("all_perf_table.csv", "official_eval_table.csv")
            for row in pd.read_csv(folder / name).to_dict("records")
        ]
    ).dropna(subset=["step"])
    base = scores[scores["train"] == "none"].pivot_table(index="step", columns="test", values="value").dropna(axis=1)
    for (train, test), own in scores[scores["train"] != "none"].groupby(["train", "test"]):
        own = own.groupby("step")[["value", "error"]].mean()
        if len(own) < 8 or np.ptp(own["value"]) < SMALL:
            continue
        every = {name: base.loc[own.index, name].to_numpy() for name in base}
        few = {"same test": every[test], "all tests": base.loc[own.index].rank().mean(axis=1).to_numpy()}
        error = np.sqrt(PAIRED) * own["error"].fillna(0.01).to_numpy()
        for indicators, said in ((few, ""), (every, f"{len(every)} indicators, ")):
            steps = own.index.to_numpy(float)
            known = candidates.described(
                [str(step) for step in own.index], indicators, {"step": steps}, [0] * len(own), None, list(steps)
            )
            name = f"{said}{train} to {test}"
            yield Table(name, "amuro", known, own["value"].to_numpy(), error, indicators, steps)


def vars_of(model: str, test: str) -> dict[str, Any]:
    """Step, task tuned on and test of a released score; no step for scores that the paper does not use."""
    for release in list(amuro_char.RELEASES.values())[:2]:
        parts = release.names.fullmatch(model)
        if parts is None or test not in release.tests or release.tests[test][1] != "default":
            continue
        found = parts.groupdict()
        shots = found.get("shots") or str(release.shots)
        if shots != "4" or found.get("stray") or (found.get("base") and "fixed" in found and not found["fixed"]):
            continue
        step = int(found["base"] or found["tuned"] or amuro_char.FINAL_STEP)
        return {"step": step, "train": (found["tuning"] or "none").split("_")[0], "test": release.tests[test][0]}
    return {"step": np.nan, "train": "none", "test": test}


def pythia(folder: Path) -> Iterator[Table]:
    """Pythia's steps: the five-shot score stands for the score after tuning, zero-shot scores on other tests are indicators.

    A price is proportional to the model's size. One table with all runs, and one of each test for the run of 410M.
    """
    shots = {name: released(folder, name) for name in ("zero-shot", "five-shot")}
    both = sorted(set(shots["zero-shot"]) & set(shots["five-shot"]))
    sizes = {"70m": 0.07, "160m": 0.16, "410m": 0.41, "1.4b": 1.4, "1.4b-deduped": 1.4, "6.9b": 6.9}
    for test in ("arc_easy", "lambada_openai", "piqa", "sciq"):
        for run in ("all", "410m"):
            keys = [key for key in both if run in ("all", key[0]) and key[0] in sizes]
            truth, error = (np.array([shots["five-shot"][key][test][m] for key in keys]) for m in ("acc", "acc_stderr"))
            tests = [
                t for t in ("arc_easy", "lambada_openai", "piqa", "sciq", "winogrande", "arc_challenge") if t != test
            ]
            columns = {t: np.array([shots["zero-shot"][key][t]["acc"] for key in keys]) for t in tests}
            steps = np.array([key[1] for key in keys], dtype=float)
            fields = {"step": steps, "parameters": [sizes[key[0]] for key in keys], "run": [key[0] for key in keys]}
            prices = np.array([sizes[key[0]] for key in keys])
            names = [f"{key[0]}@{key[1]}" for key in keys]
            known = candidates.described(names, columns, fields, fields["run"], prices / prices.mean(), list(steps))
            name = f"pythia {run} {test}"
            yield Table(name, "pythia", known, truth, np.sqrt(PAIRED) * error, columns, steps)


def released(folder: Path, shots: str) -> dict[tuple[str, int], dict[str, dict[str, float]]]:
    """Run and step -> test -> metrics."""
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for path in sorted(folder.glob(f"pythia-v1/*/{shots}/*.json")):
        step = int(path.stem.rsplit("step", 1)[1])
        key = (path.parts[-3].removeprefix("pythia-"), step)
        found.setdefault(key, {}).update(json.loads(path.read_text())["results"])
    return found


def study(folder: Path) -> Iterator[Table]:
    """The bases of a finished study, one table for each task they are tuned on; indicators as in its cohort `own`."""
    cohort = pd.read_csv(folder / "results/cohorts/own.csv")
    scores = pd.read_parquet(folder / "results/scores.parquet")
    tuned = scores[scores["primary"] & (scores["train"] == scores["test"])]
    targets = [name for name in cohort.columns if name.endswith("_tuned")]
    indicators = {
        name: cohort[name].to_numpy(float) for name in cohort.columns if name not in {"base", "run", "step", *targets}
    }
    for test, own in tuned.groupby("test"):
        own = own.set_index("step").loc[cohort["step"]]
        steps = cohort["step"].to_numpy(float)
        known = candidates.described(
            [str(step) for step in steps], indicators, {"step": steps}, [0] * len(steps), None, list(steps)
        )
        error = np.sqrt(PAIRED) * np.maximum(own["error"].to_numpy(float), 0.005)
        yield Table(f"{folder.name} {test}", "study", known, own["value"].to_numpy(float), error, indicators, steps)


# Methods: a table, what is measured of it, a generator and a budget in tunings -> (tried, pick after each, other facts)

Played = tuple[list[int], list[int], dict[str, Any]]


def in_order(order: Sequence[int], measured: np.ndarray, budget: int) -> Played:
    """Candidates in a fixed order; the pick is the best measured one."""
    tried = [int(place) for place in order[:budget]]
    return tried, [tried[int(np.argmax(measured[tried[: k + 1]]))] for k in range(len(tried))], {}


def at_random(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
    """Random order."""
    return in_order(rng.permutation(len(table.truth)), measured, budget)


def last_step(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
    """Last steps first."""
    assert table.step is not None
    return in_order(np.lexsort((rng.random(len(table.truth)), -table.step)), measured, budget)


def by_indicator(name: str) -> Callable[..., Played]:
    """The order of one indicator."""

    def play(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
        return in_order(np.lexsort((rng.random(len(table.truth)), -table.columns[name])), measured, budget)

    return play


def halving(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
    """Successive halving with simulated short tunings: their scores correlate .9 with those of full ones, and cost a quarter.

    All candidates are tuned shortly in the first rung, then half of them with half of the noise for half the price, then the rest
    in full in the order of the last rung. What rungs cost is counted in full tunings; the pick is a random one until the first
    rung is over.
    """
    count = len(table.truth)
    noise = table.truth.std() * (1 / 0.9**2 - 1) ** 0.5
    short = measured + rng.normal(0, noise, count)
    kept = np.argsort(-short)[: count // 2]
    longer = measured[kept] + rng.normal(0, noise / 2, len(kept))
    first, spent = int(np.ceil(count / 4)), int(np.ceil(count / 4 + len(kept) / 2))
    order = kept[np.argsort(-longer)]
    tried, picks, facts = in_order(order, measured, max(budget - spent, 0))
    lead = [int(rng.integers(count))] * (first - 1) + [int(np.argmax(short))] * (spent - first) + [int(order[0])]
    return [-1] * min(spent, budget) + tried, lead[:budget] + picks, facts


def plain_process(fields: bool) -> Callable[..., Played]:
    """Expected improvement with scikit-learn's Gaussian process: point estimates of the length scales, three random starts."""

    def play(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
        from sklearn.gaussian_process import GaussianProcessRegressor, kernels

        own = table.candidates
        codes = [np.eye(column.max() + 1)[column] for column in own.labels.T] if fields else []
        features = np.column_stack([own.indicators, *([own.numbers, *codes] if fields else [])])
        kernel = kernels.ConstantKernel() * kernels.Matern(np.ones(features.shape[1]), nu=2.5) + kernels.WhiteKernel(
            0.1
        )
        tried = [int(place) for place in rng.permutation(len(measured))[:3]]
        while len(tried) < budget:
            model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mean, deviation = model.fit(features[tried], measured[tried]).predict(features, return_std=True)
            standard = (mean - measured[tried].max()) / np.maximum(deviation, 1e-9)
            worth = deviation * (standard * norm.cdf(standard) + norm.pdf(standard))
            worth[tried] = -np.inf
            tried.append(int(worth.argmax()))
        return in_order(tried, measured, budget)

    return play


def race(
    rule: str | None = None, random_start: bool = False, features: str = "all", noisy: bool = False, stop: bool = True
) -> Callable[..., Played]:
    """The library's decision. features: `all`, or `fields` or `indicators` alone; stop: whether to note the rule of stopping."""

    def play(table: Table, measured: np.ndarray, rng: np.random.Generator, budget: int) -> Played:
        own, seed = shown(table, features), int(rng.integers(2**31))
        goal = decision.Goal(EPSILON, DELTA, seed)
        variances = table.errors**2 if noisy else np.zeros(len(measured))
        first = acquisition.first(prior(table.name, features, seed % 4), own.prices, decision.START, seed % 4)
        tried = list(map(int, rng.permutation(len(measured))[: decision.START])) if random_start else first
        picks = in_order(tried, measured, decision.START)[1]
        losing = [1.0] * len(picks)
        while True:
            own_prior, noise = prior(table.name, features, seed % 4), np.diag(variances[tried])
            known = surrogate.posterior(own_prior, tried, measured[tried], noise)
            picks[len(tried) - 1 :] = [decision.picked(known, tried)]
            if stop and losing[-1] > SURE:
                doubting = surrogate.posterior(own_prior.flat, tried, measured[tried], noise)
                chances = decision._chances(doubting, picks[-1], noise, goal)[0]
            losing[len(tried) - 1 :] = [chances if stop else 1.0]
            if len(tried) >= budget:
                return tried, picks, {"losing": losing}
            worth = acquisition.RULES[rule or decision.RULE](known) / own.prices
            worth[tried] = -np.inf
            tried = [*tried, int(worth.argmax())]

    return play


def shown(table: Table, features: str) -> Candidates:
    """The candidates with all features, or with some of them alone."""
    own = table.candidates
    if features == "fields":
        return replace(own, indicators=own.indicators[:, :0])
    return own if features == "all" else replace(own, numbers=own.numbers[:, :0], labels=own.labels[:, :0])


TABLES: dict[str, Table] = {}


@functools.lru_cache(maxsize=8)
def prior(name: str, features: str, seed: int) -> surrogate.Prior:
    """The prior of a table's candidates; a few seeds serve all replays."""
    return surrogate.prior(shown(TABLES[name], features), seed)


METHODS: dict[str, Callable[..., Played]] = {
    "random order": at_random,
    "last step first": last_step,
    "successive halving": halving,
    "plain process, indicators": plain_process(False),
    "plain process, all": plain_process(True),
    "race": race(),
    "race, random start": race(random_start=True, stop=False),
    "race, probability": race("probability_of_improvement", stop=False),
    "race, upper bound": race("upper_bound", stop=False),
    "race, fields alone": race(features="fields", stop=False),
    "race, indicators alone": race(features="indicators", stop=False),
}
NOISY = {"race": race(noisy=True)}


def methods(table: Table, noise: str) -> dict[str, Callable[..., Played]]:
    """All methods that a table has what they need for."""
    own = METHODS | (NOISY if noise == "rows" else {}) | {f"by {name}": by_indicator(name) for name in table.columns}
    return {name: method for name, method in own.items() if name != "last step first" or table.step is not None}


# Settings: constants of the library that are chosen without the tables that they are shown on. The rule of acquisition is not
# among them: rules differ most where candidates differ in price, and the tables with prices are all of one source.

Setting = dict[str, Any]
CHOICES: dict[str, dict[str, Any]] = {
    "TREND": {"weak": (0.0, 1.0), "middle": (0.0, 2.0), "strong": (1.0, 3.0)},
    "SHARES": {"smooth": (1.0, 0.5, 1.0, 1.0, 0.5, 0.3), "rough": (1.0, 0.5, 1.0, 0.5, 0.5, 1.0)},
    "START": {"two": 2, "three": 3},
}


def settings() -> dict[str, Setting]:
    """Every combination of choices: its name and its constants."""
    combined = itertools.product(*(own.items() for own in CHOICES.values()))
    return {
        ", ".join(name for name, _ in parts): dict(zip(CHOICES, (value for _, value in parts), strict=True))
        for parts in combined
    }


@contextlib.contextmanager
def applied(setting: Mapping[str, Any]) -> Iterator[None]:
    """Within it, the library has these constants."""
    places = {name: surrogate if hasattr(surrogate, name) else decision for name in setting}
    before = {name: getattr(place, name) for name, place in places.items()}
    for name, place in places.items():
        setattr(place, name, setting[name])
    try:
        prior.cache_clear()
        yield
    finally:
        for name, place in places.items():
            setattr(place, name, before[name])
        prior.cache_clear()


def choose(given: argparse.Namespace) -> None:
    """Replay each setting and write, for each source, the one that is best on the other sources."""
    known = settings()
    for name, setting in ({"random order": {}} | known).items():
        with applied(setting):
            method = at_random if name == "random order" else race(stop=False)
            replay(given, {name: method}, TABLES.values())
    rows = pd.DataFrame(map(json.loads, given.out.read_text().splitlines()))
    cost = rows.assign(cost=rows.apply(until_right, axis=1)).pivot_table(
        index=["source", "table"], columns="method", values="cost"
    )
    relative = cost[list(known)].div(cost["random order"], axis=0).groupby("source").mean()
    picked = {source: str(relative.drop(index=source).mean().idxmin()) for source in relative.index}
    shown = [
        {
            "left out": source,
            "chosen on the others": name,
            "cost there": relative.loc[source, name],
            "best setting there": relative.loc[source].idxmin(),
            "its cost": relative.loc[source].min(),
            "worst cost": relative.loc[source].max(),
        }
        for source, name in picked.items()
    ]
    print(markdown(pd.DataFrame(shown).round(3)))
    print(f"\nOn all sources: {relative.mean().idxmin()}")
    given.chosen.write_text(json.dumps({source: known[name] for source, name in picked.items()}, indent=2))


def until_right(row: pd.Series) -> float:
    """The share of the price of all after which the pick of a replay is right and stays so; all if it never is."""
    wrong = np.flatnonzero(np.array(row["losses"]) > MARGIN + 1e-9)
    first = 0 if not len(wrong) else int(wrong[-1]) + 1
    return float(row["shares"][first]) if first < len(row["shares"]) else 1.0


# Replays


def replays(
    table: Table, name: str, method: Callable[..., Played], noise: str, numbers: Sequence[int], budget: int
) -> Iterator[dict[str, Any]]:
    """Losses of the pick after each tuning, and what the tunings cost as a share of tuning all."""
    prices = table.candidates.prices
    for number in numbers:
        rng = np.random.default_rng([number, 1])
        drawn = np.random.default_rng([number, 2]).normal(size=len(table.truth)) * table.errors
        measured = table.truth + (drawn if noise != "none" else 0)
        truth = measured if noise == "grids" else table.truth
        tried, picks, facts = method(table, measured, rng, min(budget, len(measured)))
        share = np.cumsum([1.0 if place < 0 else prices[place] for place in tried]) / prices.sum()
        yield {
            "table": table.name,
            "source": table.source,
            "candidates": len(measured),
            "method": name,
            "noise": noise,
            "replay": number,
            "losses": np.round(truth.max() - truth[picks], 6).tolist(),
            "shares": np.round(share, 5).tolist(),
            "full": round(float(truth.max() - truth[int(np.argmax(measured))]), 6),
        } | {key: np.round(value, 4).tolist() for key, value in facts.items()}


def all_tables(given: argparse.Namespace) -> Iterator[Table]:
    """The tables whose files are there."""
    yield from variants()
    for folders, read in (([given.amuro], amuro), ([given.pythia], pythia), (given.study, study)):
        for folder in filter(None, folders):
            yield from read(folder)


def run(given: argparse.Namespace) -> None:
    """Run the replays that the file lacks."""
    chosen = json.loads(given.chosen.read_text()) if given.chosen else {}
    for table in TABLES.values():
        wanted = {n: m for n, m in methods(table, given.noise).items() if not given.methods or n in given.methods}
        with applied(chosen.get(table.source, {})):
            replay(given, wanted, [table])


def replay(given: argparse.Namespace, wanted: Mapping[str, Callable[..., Played]], tables: Iterable[Table]) -> None:
    """Append to the file those replays of some methods that it lacks."""
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {tuple(row[key] for key in ("table", "method", "noise", "replay")) for row in map(json.loads, lines)}
    with given.out.open("a") as file:
        for table, (name, method) in itertools.product(tables, wanted.items()):
            left = [n for n in range(given.replays) if (table.name, name, given.noise, n) not in done]
            for row in replays(table, name, method, given.noise, left, given.budget):
                file.write(json.dumps(row) + "\n")


# The whole selection, on finished studies


def budgets(given: argparse.Namespace) -> None:
    """Print what `snakemake select` picks in finished studies for a share of the price of all, against what all of them say.

    Goals: each task alone, and all tasks together, with the study's indicators and with none. Rounds are played as the workflow
    plays them; the share is of the price of tuning all with the same indicators.
    """
    rows = []
    for folder in given.study:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        tasks = list(dict.fromkeys(task for own in config["models"] for task in own["train"]))
        with contextlib.chdir(folder):
            own = {task: [task] for task in tasks}
            if len({tuple(models["recipes"]) for models in config["models"]}) == 1:
                own["all tasks"] = tasks
            for (name, goal), used in itertools.product(own.items(), (list(config["indicators"]), [])):
                known = {"study": folder.name, "goal": name, "indicators": len(used)}
                rows.append(known | budgeted(config, goal, used, given))
    print(markdown(pd.DataFrame(rows).round(3)))


def budgeted(
    config: Mapping[str, Any], goal: Sequence[str], indicators: Sequence[str], given: argparse.Namespace
) -> dict[str, Any]:
    """What a selection picks for a share of the price of all, and what that loses, in the finished study of this folder."""
    block = {"tests": list(goal), "suite": next(iter(config["suites"])), "epsilon": given.epsilon}
    cohort = config["cohorts"]["own"]
    block |= {"indicators": list(indicators)} | {key: cohort[key] for key in ("families", "fields") if key in cohort}
    study = config_checks.read({**config, "selection": block | {"budget": {"tunings": 1}}})
    names = selection.named(selection.candidates(study).to_numpy())
    whole = selecting._prices(study, names, names, Path())[1].all_hours
    study = config_checks.read({**config, "selection": block | {"budget": {"gpu_hours": given.share * whole}}})
    tuned: list[selection.Candidate] = []
    while (played := selecting.play(study, names, tuned, parts_of(study, names, tuned))).batch:
        tuned += played.batch
    scores, items = (selecting._gathered(parts_of(study, names, names), kind) for kind in ("scores", "items"))
    facts = measuring.measured(study["selection"], names, scores, items)
    picks = [row for row in played.rows if row["state"] == "pick"]
    best = int(facts.values.argmax())
    pick = names.index(tuple(picks[0][key] for key in selection.CANDIDATE_KEYS)) if picks else None
    spread = facts.noise[best, best] + (facts.noise[pick, pick] - 2 * facts.noise[best, pick] if picks else 0)
    return {
        "tuned": f"{len(tuned)} of {len(names)}",
        "ended": played.ended,
        "pick": names[pick][1] if picks else None,
        "best of all": names[best][1],
        "loss": facts.values[best] - facts.values[pick] if picks else np.nan,
        "its 95 % half-width": 1.96 * max(spread, 0) ** 0.5 if picks else np.nan,
    }


def parts_of(study: Any, names: Sequence[selection.Candidate], tuned: Sequence[selection.Candidate]) -> list[Path]:
    """The parts that a round reads of the finished study of this folder, as in rules/functions/selection.smk."""
    cells = [selection.untouched(study, names), selection.cells(study, tuned)]
    paths = [
        Path("results", kind, grid.path(row, grid.PART_KEYS), "part.parquet")
        for rows in cells
        for kind in ("scores", "items")
        for row in rows.to_dict("records")
    ]
    bases = dict.fromkeys(one[:2] for one in names)
    return paths + [Path(f"results/indicators/family={family}/step={step}/part.parquet") for family, step in bases]


# Results


def interval(hits: int, count: int) -> str:
    """A share in percent with its exact 95 % interval (Clopper & Pearson 1934)."""
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return f"{100 * hits / count:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def needed(rows: pd.DataFrame, limits: np.ndarray) -> float:
    """The smallest share of the price of all after which 95 % of the replays are right and stay so."""
    right = np.array([np.array(row) <= limits[k] + 1e-9 for k, row in enumerate(rows["losses"])])
    enough = np.flatnonzero(right.mean(axis=0) < 0.95)
    first = 0 if not len(enough) else int(enough[-1]) + 1
    return float("nan") if first >= right.shape[1] else float(np.mean([row[first] for row in rows["shares"]]))


def tables_of(given: argparse.Namespace) -> None:
    """Print how often the pick is right after some tunings, the price until 95 %, and how well the rule of stopping holds."""
    rows = pd.DataFrame(map(json.loads, given.out.read_text().splitlines()))
    points = [8, 10, 13, 17, 20]
    for (noise, table), own in rows.groupby(["noise", "table"], sort=False):
        lines = []
        for name, played in own.groupby("method", sort=False):
            losses = np.array(played["losses"].tolist())
            cells = {
                f"after {k}": interval(int((losses[:, k - 1] <= MARGIN + 1e-9).sum()), len(losses))
                for k in (points if len(losses[0]) >= 20 else range(1, len(losses[0])))
                if k <= losses.shape[1]
            }
            full = interval(int((played["full"] <= MARGIN + 1e-9).sum()), len(played))
            cost = needed(played, np.full(len(played), MARGIN))
            lines.append(
                {"method": name, "replays": len(played), **cells, "tuning all": full, "price until 95 %": f"{cost:.2f}"}
            )
        print(f"\n{table}, noise {noise}, {own['candidates'].iloc[0]} candidates\n\n{markdown(pd.DataFrame(lines))}")
    print(f"\nPrice until right, against the baselines\n\n{markdown(pd.DataFrame(compared(rows)).round(3))}")
    stopped = rows.dropna(subset=["losing"]) if "losing" in rows else rows[:0]
    stopped = stopped[[any(value < 1 for value in row) for row in stopped["losing"]]]
    print(
        f"\nThe rule of stopping: loss above {EPSILON:g} with probability {DELTA:g}\n\n{markdown(pd.DataFrame(stops(stopped)))}"
    )


BASELINES = ("random order", "last step first", "successive halving")


def compared(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The mean price until the pick is right, of the race and of each baseline, and by how much the race is later than the best.

    `one indicator`: the order of the indicator that is best on the other tables of the source, where the same models are known.
    `in hindsight`: that of the best on the table itself, which nobody knows before tuning, so it is no baseline.
    """
    known = rows.assign(cost=rows.apply(until_right, axis=1))
    costs = known.groupby(["noise", "source", "table", "method"])["cost"].mean().unstack()
    single = [name for name in costs if name.startswith("by ")]
    for place, own in costs.iterrows():
        noise, source, table = place  # type: ignore[misc]
        others = costs.loc[(noise, source), single].drop(index=table).reindex(columns=own[single].dropna().index)
        baselines = {name: own.get(name, np.nan) for name in BASELINES}
        others = others.dropna(axis=1)
        baselines["one indicator"] = own[others.mean().idxmin()] if others.size else np.nan
        best = min(baselines, key=lambda name: np.nan_to_num(baselines[name], nan=np.inf))
        yield {"noise": noise, "table": table, "race": own.get("race", np.nan), **baselines} | {
            "in hindsight": own[single].min(),
            "best baseline": best,
            "later": own.get("race", np.nan) - baselines[best],
        }


def stops(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """When races stop, and how often their pick then loses more than said."""
    for (noise, table), own in rows.groupby(["noise", "table"], sort=False):
        ends, lost = [], 0
        for row in own.to_dict("records"):
            small = [k for k, chance in enumerate(row["losing"]) if chance <= DELTA and k + 1 >= decision.FEWEST]
            if small or len(row["losing"]) == row["candidates"]:
                ends.append(small[0] + 1 if small else row["candidates"])
                lost += row["losses"][ends[-1] - 1] > EPSILON + 1e-9
        yield {
            "noise": noise,
            "table": table,
            "replays": len(own),
            "stopped within the budget": len(ends),
            "tunings, median": np.median(ends) if ends else None,
            "of": own["candidates"].iloc[0],
            "lost more": interval(int(lost), len(ends)) if ends else "none stopped",
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["settings", "replay", "tables", "budgets"])
    parser.add_argument("--out", type=Path, default=Path("replays.jsonl"))
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--budget", type=int, default=25, help="tunings of a replay at most")
    parser.add_argument("--noise", choices=["none", "grids", "rows"], default="none")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--tables", nargs="*", help="only tables whose names begin so")
    parser.add_argument(
        "--epsilon", type=float, default=EPSILON, help="loss that the rule of stopping accepts; one in each file"
    )
    for source in ("amuro", "pythia"):
        parser.add_argument(f"--{source}", type=Path, help="folder of its files")
    parser.add_argument("--study", type=Path, nargs="*", default=[], help="folders of finished studies")
    parser.add_argument(
        "--share", type=float, default=0.4, help="budget of a selection, as a share of the GPU-hours of all"
    )
    parser.add_argument("--chosen", type=Path, help="file of the settings that were chosen for each source")
    given = parser.parse_args()
    begun = tuple(given.tables or [""])
    EPSILON = given.epsilon
    if given.action != "budgets":
        TABLES |= {table.name: table for table in all_tables(given) if table.name.startswith(begun)}
    {"settings": choose, "replay": run, "tables": tables_of, "budgets": budgets}[given.action](given)
