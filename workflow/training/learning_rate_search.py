"""Choose a learning rate by the validation loss of its trials: one for a family, or one for each base.

With one rate for all steps, a step may look worse because its best rate is another one (Springer et al., 2025, arXiv
2503.19206, compare a fixed rate with the best one of each checkpoint). A search for each base assumes that the best rate moves
slowly along a run, and that the loss has a single minimum in the rate. The last step tries every rate. The first step is next,
then each step half-way between two searched ones; it begins with the rates from one below the lowest to one above the highest
of those chosen at these two. It goes on until both rates next to its best one have been tried, so a wrong beginning costs
trials but not the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from workflow.errors import StudyError
from workflow.statistics import Resampling, mean


def choose(trials: pd.DataFrame, rates: Sequence[float], resampling: Resampling) -> list[dict[str, Any]]:
    """Return one row for each tried rate, in the columns of `tables.CHOICES`; chosen is the lowest loss, in a tie the first.

    trials: all validation rows of all trials, columns step, learning_rate, id and loss (null where a trial diverged).
    A rate that diverged on one base is never chosen. Errors: StudyError if all diverged.
    """
    rows = measured(trials, rates, resampling)
    left = [row for row in rows if not row["diverged"]]
    if not left:
        raise StudyError(f"{diverged(rates, trials['step'])}; add a lower one")
    best = min(left, key=lambda row: row["loss"])
    return [row | {"chosen": row is best} for row in rows]


def neighbours(steps: Iterable[int]) -> dict[int, list[int]]:
    """Return for each step the searched steps next to it, whose choices its search begins with; in the order of the searches.

    The last step is searched first and has none; then come the first step, and each time the middle of two searched ones.
    """
    ordered = sorted(set(map(int, steps)))
    found: dict[int, list[int]] = {ordered[-1]: []}
    if len(ordered) > 1:
        found[ordered[0]] = [ordered[-1]]
    waiting = [(0, len(ordered) - 1)]
    while waiting:
        low, high = waiting.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            found[ordered[middle]] = [ordered[low], ordered[high]]
            waiting += [(low, middle), (middle, high)]
    return found


def first_tried(rates: Sequence[float], near: Iterable[float]) -> list[int]:
    """Return the indices of the rates that a search begins with: from one below the lowest of `near` to one above the highest,
    by size; of all rates if `near` is empty."""
    by_size = sorted(range(len(rates)), key=lambda index: rates[index])
    chosen = set(near)
    ranks = [rank for rank, index in enumerate(by_size) if rates[index] in chosen]
    return sorted(by_size[max(0, min(ranks) - 1) : max(ranks) + 2] if ranks else by_size)


def next_tried(rates: Sequence[float], losses: Mapping[int, float | None]) -> list[int]:
    """Return the indices of the rates to try next: those next to the best one, by size, that are untried; none at the end.

    losses: index of a tried rate -> its validation loss, None if it diverged. If all diverged, all other rates are next.
    """
    by_size = sorted(range(len(rates)), key=lambda index: rates[index])
    finite = {index: loss for index, loss in losses.items() if loss is not None}
    if not finite:
        return [index for index in range(len(rates)) if index not in losses]
    rank = by_size.index(min(finite, key=lambda index: finite[index]))
    return sorted(index for index in by_size[max(0, rank - 1) : rank + 2] if index not in losses)


def measured(trials: pd.DataFrame, rates: Sequence[float], resampling: Resampling) -> list[dict[str, Any]]:
    """Return the rows of `choose` for the tried rates, none of them chosen, also where all diverged."""
    tried = set(trials["learning_rate"])
    return [
        {"rate": index, "learning_rate": rate, "chosen": False}
        | _measured(trials[trials["learning_rate"] == rate], resampling)
        for index, rate in enumerate(rates)
        if rate in tried
    ]


def diverged(rates: Iterable[float], steps: Iterable[int]) -> str:
    """Return the message for a search in which every learning rate diverged on some base; steps: of these bases."""
    tried = sorted(set(steps))
    where = f"step{'' if len(tried) == 1 else 's'} {', '.join(map(str, tried))}"
    return f"tuning diverged at every learning rate ({', '.join(f'{rate:g}' for rate in rates)}), tried at {where}"


def _measured(trials: pd.DataFrame, resampling: Resampling) -> dict[str, Any]:
    """Return the loss of one rate with its interval over resampled validation rows; a row's loss is its mean over bases."""
    if trials["loss"].isna().any():
        return {"n": trials["id"].nunique(), "diverged": True}
    interval = mean(trials.groupby("id", sort=False)["loss"].mean().to_numpy(float), resampling)
    return {"diverged": False, "n": interval.n} | {
        "loss": interval.value,
        "error": interval.error,
        "low": interval.low,
        "high": interval.high,
    }


def chosen_rate(choices: Iterable[Mapping[str, Any]]) -> float:
    """Return the chosen learning rate among rows of `tables.CHOICES`."""
    return next(row["learning_rate"] for row in choices if row["chosen"])
