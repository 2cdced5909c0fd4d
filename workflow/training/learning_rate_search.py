"""Choose a learning rate by the validation loss of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from workflow.errors import StudyError
from workflow.statistics import Resampling, mean


def choose(trials: pd.DataFrame, rates: Sequence[float], resampling: Resampling) -> list[dict[str, Any]]:
    """Return one row for each rate, in the columns of `tables.CHOICES`; chosen is the lowest loss, in a tie the first.

    trials: all validation rows of all trials, columns step, learning_rate, id and loss (null where a trial diverged).
    A rate that diverged on one base is never chosen. Errors: StudyError if all diverged.
    """
    rows = [
        {"rate": index, "learning_rate": rate, **_measured(trials[trials["learning_rate"] == rate], resampling)}
        for index, rate in enumerate(rates)
    ]
    left = [row for row in rows if not row["diverged"]]
    if not left:
        raise StudyError(f"{diverged(rates, trials['step'])}; add a lower one")
    best = min(left, key=lambda row: row["loss"])
    return [row | {"chosen": row is best} for row in rows]


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
