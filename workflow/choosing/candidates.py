"""Candidates for fine-tuning and what is known of each before it is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """What may be fine-tuned, with its features. n: number of candidates.

    names; indicators: normal scores, higher is better, shape (n, indicators); numbers: normal scores of numeric config fields,
    shape (n, numbers); labels: codes of the other fields, shape (n, labels); runs: code of the pre-training run, shape (n,);
    prices: GPU-hours of tuning and evaluating each, shape (n,); steps: training step of each, shape (n,), NaN where not known.
    """

    names: list[str]
    indicators: Values
    numbers: Values
    labels: NDArray[np.int64]
    runs: NDArray[np.int64]
    prices: Values
    steps: Values

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.names)

    @property
    def progress(self) -> Values:
        """How far its run has come at each candidate: normal scores of the step as a share of the run's last step, shape (n,).

        0 for all where steps are not known.
        """
        if not np.isfinite(self.steps).all():
            return np.zeros(len(self))
        last = pd.Series(self.steps).groupby(self.runs).transform("max").to_numpy(dtype=float)
        return normal_scores(self.steps / np.maximum(last, 1.0))


def described(
    names: Sequence[str],
    indicators: Mapping[str, Sequence[float]],
    fields: Mapping[str, Sequence[Any]],
    runs: Sequence[Any] | None = None,
    prices: Sequence[float] | None = None,
    steps: Sequence[float] | None = None,
) -> Candidates:
    """Return candidates from columns of a table.

    indicators: turned so that higher is better, NaN where not measured; fields: numeric where all values are numbers;
    runs: each candidate by itself if None; prices: 1 each if None. Columns with a single value are left out.
    """
    count = len(names)
    columns = {name: pd.Series(list(values)) for name, values in fields.items()}
    numeric = {name: pd.api.types.is_numeric_dtype(column) for name, column in columns.items()}
    varied = [name for name, column in columns.items() if column.nunique() > 1]
    return Candidates(
        list(names),
        _stacked([normal_scores(np.asarray(values, dtype=float)) for values in indicators.values()], count),
        _stacked([normal_scores(columns[name].to_numpy(dtype=float)) for name in varied if numeric[name]], count),
        np.array([pd.factorize(columns[name])[0] for name in varied if not numeric[name]], dtype=np.int64)
        .reshape(-1, count)
        .T,
        np.arange(count) if runs is None else pd.factorize(pd.Series(list(runs)))[0].astype(np.int64),
        np.ones(count) if prices is None else np.asarray(prices, dtype=float),
        np.full(count, np.nan) if steps is None else np.asarray(steps, dtype=float),
    )


def normal_scores(values: Values) -> Values:
    """Return the normal quantiles of the ranks, (rank - 1/2) / n, shape (n,): only the order counts, and an outlier is no lever.

    Ties share their mean rank; a missing value gets 0, the median.
    """
    known = np.isfinite(values)
    scores = np.zeros(len(values))
    if known.any():
        scores[known] = norm.ppf((rankdata(values[known]) - 0.5) / known.sum())
    return scores


def _stacked(columns: Sequence[Values], count: int) -> Values:
    """Return columns that vary side by side, shape (count, columns)."""
    return np.array([column for column in columns if np.ptp(column) > 0]).reshape(-1, count).T
