"""Order bases by pairwise preferences and evaluate the top of the order (arXiv 2504.12491, section 4.4, Figure 5).

Bases are ordered by Borda count, the number of bases to which they are preferred (Dwork et al. 2001). Equal counts are in
random order; recall and regret are expectations over it.
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
    """Return the number of bases to which each base is preferred; preferences: shape (..., pairs), 0 for none."""
    first, second = first_second(bases)
    identity = np.eye(bases)
    return (preferences > 0) @ identity[first] + (preferences < 0) @ identity[second]


def recall(counts: Values, wanted: Mask) -> Values:
    """Return the expected share of the wanted bases among the first k, for k from 1 to all: shape (bases,)."""
    above = (counts[None] > counts[:, None]).sum(axis=1)[wanted]
    equal = (counts[None] == counts[:, None]).sum(axis=1)[wanted]
    length = np.arange(1, len(counts) + 1)
    return np.clip((length - above[:, None]) / equal[:, None], 0, 1).mean(axis=0)


def regret(counts: Values, target: Values) -> float:
    """Return the expected difference between the best target and that of the first base, in the target's unit."""
    return float(target.max() - target[counts == counts.max()].mean())


def shortlist(counts: Values, target: Values) -> int:
    """Return the length of the shortest list that is certain to contain a best base, for any order of equal counts."""
    best = counts[target == target.max()].max()
    return int((counts >= best).sum() - (counts[target == target.max()] == best).sum() + 1)


def evaluate(
    forecasts: Sequence[Forecast], target: str, cohort: Cohort, asked: Mask, resampling: Resampling
) -> Iterator[dict[str, Any]]:
    """Yield rows of `tables.RANKINGS`: means over the rounds of a split, each with its candidates in order.

    recall_of_best and recall_of_top_five for each shortlist length k that all rounds reach; regret of the first base;
    length of the shortlist needed to contain the best, on average and (`longest_shortlist`) at most. sd, low and high are
    over rounds: they describe a single draw of candidates, not the uncertainty of the mean.
    """
    values = cohort.values([target])[:, 0]
    places = [candidates(pairs, len(values)) for pairs in asked if pairs.any()]
    chosen = asked[asked.any(axis=1)]
    for forecast in forecasts:
        preferences = np.where(chosen, forecast.preferences[asked.any(axis=1)], 0)
        counts = wins(preferences, len(values))
        rounds = [(count[members], values[members]) for count, members in zip(counts, places, strict=True)]
        keys = {"forecaster": forecast.forecaster, "kind": forecast.kind, "source": forecast.source, "target": target}
        for statistic, k, values_by_round in _statistics(rounds):
            yield keys | {"statistic": statistic, "k": k} | _summary(statistic, values_by_round, resampling)


def _statistics(rounds: Sequence[tuple[Values, Values]]) -> Iterator[tuple[str, int | None, list[float]]]:
    """Yield each statistic with its value in each round."""
    most = min(len(target) for _, target in rounds)
    fifth = [np.sort(target)[-min(TOP, len(target))] for _, target in rounds]
    for statistic, wanted in (
        ("recall_of_best", [target == target.max() for _, target in rounds]),
        ("recall_of_top_five", [target >= least for (_, target), least in zip(rounds, fifth, strict=True)]),
    ):
        curves = [recall(counts, mask)[:most] for (counts, _), mask in zip(rounds, wanted, strict=True)]
        for k, recalls in enumerate(np.transpose(curves), start=1):
            yield statistic, k, [float(value) for value in recalls]
    yield "regret", None, [regret(*mask) for mask in rounds]
    lengths = [float(shortlist(*mask)) for mask in rounds]
    yield "shortlist", None, lengths
    yield "longest_shortlist", None, lengths


def _summary(statistic: str, by_round: Sequence[float], resampling: Resampling) -> dict[str, Any]:
    """Return the mean over rounds, with sd and interval if there are several; for the longest shortlist the maximum only."""
    values = np.array(by_round)
    if statistic == "longest_shortlist":
        return {"value": float(values.max()), "n": len(values)}
    if len(values) == 1:
        return {"value": float(values[0]), "n": 1}
    low, high = resampling.bounds(values)
    return {"value": float(values.mean()), "sd": float(values.std(ddof=1)), "low": low, "high": high, "n": len(values)}
