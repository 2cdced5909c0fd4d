"""Choosing a learning rate by the validation loss of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from workflow.errors import StudyError
from workflow.statistics import Resampling, mean


def choose(trials: pd.DataFrame, rates: Sequence[float], how: Resampling) -> list[dict[str, Any]]:
    """One row for each rate, in the columns of `tables.CHOICES`; chosen is the lowest loss, of equal ones the first.

    trials: all validation rows of all trials, columns step, learning_rate, id and loss (null where a trial diverged).
    A rate that diverged on one base is never chosen. Errors: StudyError when all did.
    """
    rows = [
        {"rate": place, "learning_rate": rate, **_measured(trials[trials["learning_rate"] == rate], how)}
        for place, rate in enumerate(rates)
    ]
    left = [row for row in rows if not row["diverged"]]
    if not left:
        raise StudyError(f"{diverged(rates, trials['step'])}; expected one that does not, a lower one")
    best = min(left, key=lambda row: row["loss"])
    return [row | {"chosen": row is best} for row in rows]


def diverged(rates: Iterable[float], steps: Iterable[int]) -> str:
    """What to say of a search in which no learning rate is left, tried on the bases of these steps."""
    tried = sorted(set(steps))
    place = f"step{'' if len(tried) == 1 else 's'} {', '.join(map(str, tried))}"
    return f"tuning diverged at every learning rate ({', '.join(f'{rate:g}' for rate in rates)}), tried at {place}"


def _measured(trials: pd.DataFrame, how: Resampling) -> dict[str, Any]:
    """Loss of one rate with its interval over resampled validation rows; a row's loss is its mean over the bases."""
    if trials["loss"].isna().any():
        return {"n": trials["id"].nunique(), "diverged": True}
    found = mean(trials.groupby("id", sort=False)["loss"].mean().to_numpy(float), how)
    return {
        "loss": found.value, "error": found.error, "low": found.low, "high": found.high, "n": found.n, "diverged": False,
    }  # fmt: skip


def chosen_rate(choices: Iterable[Mapping[str, Any]]) -> float:
    """The chosen learning rate among rows of `tables.CHOICES`."""
    return next(row["learning_rate"] for row in choices if row["chosen"])
