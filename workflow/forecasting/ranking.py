"""From pairs to an order of bases, and what a shortlist made of it holds (arXiv 2504.12491, section 4.4, Figure 5).

Bases are ordered by Borda count: against how many others they are preferred (Dwork et al. 2001). Equal counts are
in random order; recall and regret are expectations over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.forecasting.cohorts import Cohort
from workflow.forecasting.forecasters import Forecast
from workflow.forecasting.pairs import first_second
from workflow.forecasting.splits import candidates
from workflow.statistics import Resampling

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

TOP = 5


def wins(preferences: Values, bases: int) -> Values:
    """How many others each base is preferred to; preferences: shape (..., pairs), 0 for no preference."""
    first, second = first_second(bases)
    own = np.eye(bases)
    return (preferences > 0) @ own[first] + (preferences < 0) @ own[second]


def recall(counts: Values, wanted: Mask) -> Values:
    """Expected share of the wanted bases among the first k, for k from 1 to all: shape (bases,)."""
    above = (counts[None] > counts[:, None]).sum(axis=1)[wanted]
    equal = (counts[None] == counts[:, None]).sum(axis=1)[wanted]
    length = np.arange(1, len(counts) + 1)
    return np.clip((length - above[:, None]) / equal[:, None], 0, 1).mean(axis=0)


def regret(counts: Values, target: Values) -> float:
    """How far the target of the first base is expected to fall below the best one, in the target's unit."""
    return float(target.max() - target[counts == counts.max()].mean())


def shortlist(counts: Values, target: Values) -> int:
    """How many of the first bases hold a best one for certain, equal counts in whatever order."""
    best = counts[target == target.max()].max()
    return int((counts >= best).sum() - (counts[target == target.max()] == best).sum() + 1)


def evaluate(
    forecasts: Sequence[Forecast], target: str, cohort: Cohort, asked: Mask, how: Resampling
) -> Iterator[dict[str, Any]]:
    """Rows of `tables.RANKINGS`: means over the rounds of a split, in each of which its own candidates are ordered.

    recall_of_best and recall_of_top_five for each shortlist length k that all rounds reach; regret of taking the first;
    shortlist needed to hold the best, on average and (`longest_shortlist`) in every round. sd, low and high are over
    rounds: they say how one draw of candidates may fare, not how well the mean is known.
    """
    values = cohort.values([target])[:, 0]
    places = [candidates(pairs, len(values)) for pairs in asked if pairs.any()]
    chosen = asked[asked.any(axis=1)]
    for forecast in forecasts:
        own = np.where(chosen, forecast.preferences[asked.any(axis=1)], 0)
        counts = wins(own, len(values))
        rounds = [(count[there], values[there]) for count, there in zip(counts, places, strict=True)]
        keys = {"forecaster": forecast.forecaster, "kind": forecast.kind, "source": forecast.source, "target": target}
        for statistic, k, found in _statistics(rounds):
            yield keys | {"statistic": statistic, "k": k} | _summary(statistic, found, how)


def _statistics(rounds: Sequence[tuple[Values, Values]]) -> Iterator[tuple[str, int | None, list[float]]]:
    """Each statistic with its value in each round."""
    most = min(len(target) for _, target in rounds)
    fifth = [np.sort(target)[-min(TOP, len(target))] for _, target in rounds]
    for statistic, wanted in (
        ("recall_of_best", [target == target.max() for _, target in rounds]),
        ("recall_of_top_five", [target >= least for (_, target), least in zip(rounds, fifth, strict=True)]),
    ):
        curves = [recall(counts, own)[:most] for (counts, _), own in zip(rounds, wanted, strict=True)]
        for k, found in enumerate(np.transpose(curves), start=1):
            yield statistic, k, [float(value) for value in found]
    yield "regret", None, [regret(*own) for own in rounds]
    lengths = [float(shortlist(*own)) for own in rounds]
    yield "shortlist", None, lengths
    yield "longest_shortlist", None, lengths


def _summary(statistic: str, found: Sequence[float], how: Resampling) -> dict[str, Any]:
    """The mean over rounds with their spread where there are several; of the longest shortlist the maximum alone."""
    values = np.array(found)
    if statistic == "longest_shortlist":
        return {"value": float(values.max()), "n": len(values)}
    if len(values) == 1:
        return {"value": float(values[0]), "n": 1}
    low, high = how.bounds(values)
    return {"value": float(values.mean()), "sd": float(values.std(ddof=1)), "low": low, "high": high, "n": len(values)}
