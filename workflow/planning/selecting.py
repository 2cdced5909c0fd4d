"""One round of a study's selection: what is known, what it has cost, and which candidates are fine-tuned next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow.choosing import candidates, race
from workflow.choosing.candidates import Candidates
from workflow.choosing.decision import Goal
from workflow.errors import StudyError
from workflow.forecasting import own_cohort
from workflow.indicators import aggregation
from workflow.planning import costs
from workflow.settings import Study
from workflow.storage import tables
from workflow.storage.markdown import markdown
from workflow.study import grid, indicators, selection
from workflow.study.selection import Candidate


@dataclass(frozen=True)
class Round:
    """The outcome of a round.

    rows: of `tables.SELECTION`; batch: what is fine-tuned next; ended: `settled`, `budget`, or None if a round follows; sentence.
    """

    rows: list[dict[str, Any]]
    batch: list[Candidate]
    ended: str | None
    sentence: str


def play(
    study: Study,
    names: Sequence[Candidate],
    tuned: Sequence[Candidate],
    parts: Sequence[Path],
    folder: Path = Path(),
) -> Round:
    """Return the next round of a study's selection.

    names: all candidates; tuned: chosen in earlier rounds; parts: of scores, items and indicators, as the rules list them;
    folder: the study's. Errors: StudyError where a budget in GPU-hours cannot be kept, since prices are not known.
    """
    block = study["selection"]
    assert block is not None
    scores, items, measures = (_gathered(parts, kind) for kind in ("scores", "items", "indicators"))
    facts = race.measured(block, tuned, scores, items)
    prices, budget = _prices(study, names, tuned, folder)
    known = _described(study, names, measures, scores, [price.estimated for price in prices])
    goal = Goal(block["epsilon"], block["delta"], block["seed"])
    decision = race.judged(known, facts, names, goal, block["batch"])
    kept = [] if decision.settled else budget.affordable(decision, len(tuned), [price.expected for price in prices])
    ended = "settled" if decision.settled else None if kept else "budget"
    batch = [decision.batch[index].candidate for index in kept]
    shown = {name: price.expected for name, price in zip(names, prices, strict=True)} if budget.measured else {}
    return Round(
        race.rows(decision, names, facts, batch, shown),
        [names[index] for index in batch],
        ended,
        race.sentence(decision, names, facts, goal, budget, ended),
    )


KINDS = {
    "scores": (grid.PART_KEYS, tables.SCORES),
    "items": (grid.PART_KEYS, tables.ITEMS),
    "indicators": (grid.BASE_KEYS, tables.INDICATORS),
}


def _gathered(parts: Iterable[Path], kind: str) -> pd.DataFrame:
    """Return the parts of a kind in one table."""
    of_kind = [path for path in parts if Path(path).parts[1] == kind]
    return tables.frame(tables.gather(of_kind, *KINDS[kind]))


def _described(
    study: Study, names: Sequence[Candidate], measures: pd.DataFrame, scores: pd.DataFrame, prices: Sequence[float]
) -> Candidates:
    """Return the candidates with their indicators and config fields; the recipe is a field where there are several."""
    block = study["selection"]
    assert block is not None
    used = {name: study["indicators"][name] for name in selection.indicator_names(study)}
    values = aggregation.values(measures, used, scores) if used else pd.DataFrame(columns=aggregation.VALUES)
    by_base = {
        name: {
            (family, int(step)): float(value)
            for family, step, value in values_of_indicator[["family", "step", "value"]].to_numpy()
        }
        for name, values_of_indicator in values.groupby("indicator", sort=False)
    }
    measured_indicators = {
        name: [values_of_indicator.get(one[:2], np.nan) for one in names]
        for name, values_of_indicator in by_base.items()
    }
    fields = block["fields"]
    config = {
        (base["family"], base["step"]): base["config"]
        for base in own_cohort.bases(study, {"fields": fields})  # type: ignore[typeddict-item]
    }
    columns = {field: [config[one[:2]][field] for one in names] for field in fields}
    columns["recipe"] = [one[2] for one in names]
    titles = [f"{family}@{step} {recipe}" for family, step, recipe in names]
    return candidates.described(
        titles, measured_indicators, columns, [one[0] for one in names], prices, [one[1] for one in names]
    )


def _prices(
    study: Study, names: Sequence[Candidate], tuned: Sequence[Candidate], folder: Path
) -> tuple[list[costs.Price], race.Budget]:
    """Return the price of each candidate, and the budget; prices of 1 if the sizes of the models are not known.

    Candidates are chosen by estimated prices: measured times differ from run to run, and decisions would with them.
    """
    block = study["selection"]
    assert block is not None
    limits = {"tunings": block["budget"].get("tunings", np.inf), "hours": block["budget"].get("gpu_hours", np.inf)}
    try:
        prices = _priced(study, names, folder)
    except StudyError:
        if "gpu_hours" in block["budget"]:
            raise
        return [costs.Price(1.0, 1.0) for _ in names], race.Budget(**limits, spent=0.0, all_hours=0.0, measured=False)
    spent = _shared(study, names, folder) + sum(prices[names.index(one)].expected for one in tuned)
    left = sum(price.expected for price, one in zip(prices, names, strict=True) if one not in set(tuned))
    return prices, race.Budget(**limits, spent=spent, all_hours=spent + left, measured=True)


def _priced(study: Study, names: Sequence[Candidate], folder: Path) -> list[costs.Price]:
    """Return what fine-tuning and evaluating each candidate costs, all seeds together."""
    places = folder / "resources", folder / "results/benchmarks"
    sums = {name: np.zeros(2) for name in names}
    for rule, rows in (("tune", selection.models(study)), ("predict", selection.cells(study, names))):
        jobs = rows.to_dict("records")
        for job, price in zip(jobs, costs.prices(study, rule, jobs, *places), strict=True):
            if (one := (job["family"], int(job["step"]), job["recipe"])) in sums:  # not one that diverged
                sums[one] += price
    return [costs.Price(*map(float, sums[name])) for name in names]


def _shared(study: Study, names: Sequence[Candidate], folder: Path) -> float:
    """Return the measured hours that serve all candidates: indicators, their bases' scores, trials of learning rates."""
    bases = [grid.path({"family": family, "step": step}, grid.BASE_KEYS) for family, step, _ in names]
    scored = [grid.path(row, grid.PART_KEYS) for row in selection.untouched(study, names).to_dict("records")]
    trials = [grid.path(row, grid.TRIAL_KEYS) for row in grid.trials(study).to_dict("records")]
    benchmarks = folder / "results/benchmarks"
    used = {name: study["indicators"][name] for name in selection.indicator_names(study)}
    jobs = {"measure": bases if indicators.run_for(used) else [], "predict": scored, "try_rate": trials}
    return sum(costs.measured_hours(benchmarks / rule, paths) for rule, paths in jobs.items())


ORDER = ["pick", "next", "tuned", "left", "out"]


def page(table: pd.DataFrame, sentence: str) -> str:
    """Return a selection as Markdown: the sentence, then the candidates, the next ones after the pick."""
    ranked = table.assign(place=table["state"].map(ORDER.index)).sort_values(
        ["place", "expected"], ascending=[True, False]
    )
    return f"{sentence}\n\n{markdown(ranked.drop(columns='place'))}"
