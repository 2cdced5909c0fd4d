"""Imported accuracies that are closer together than sampling allows: most likely models that predict one label."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import AuditInputs, at_steps, finding, listed, method_of, models, span

WINDOW = 0.1  # standard errors: a median of 3,000 resamples, as some releases report it, is off by a third of this
PROBABILITY = 0.01  # of so many accuracies so close by chance, per test


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each label test with accuracies that many models share, across formats and numbers of shots.

    A label's share of the rows is the same for all models, so constant predictions coincide and others do not.
    """
    scores = material.imported
    known = scores[(scores["metric"] == "accuracy") & (scores["error"] > 0)]
    for (_, _, test), rows in known.groupby(["family", "suite", "test"]):
        if method_of(test) == "label":
            plateaus = list(_plateaus(_fine(rows)))
            if plateaus:
                repeated = pd.concat(plateaus)
                share = len(repeated) / len(rows)
                yield finding("warning", repeated, _evidence(plateaus, rows), value=share, limit=0.0, n=len(rows))


def _fine(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a large enough test: of its p(1-p)/error² rows, one moves the accuracy by less than WINDOW."""
    return rows[rows["error"] <= WINDOW * rows["value"] * (1 - rows["value"])]


def _plateaus(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Sets of accuracies within WINDOW of each other that chance does not explain, the largest first."""
    rows = rows.sort_values("value")
    while len(rows):
        values, errors = rows["value"].to_numpy(), rows["error"].to_numpy()
        ends = np.searchsorted(values, values + WINDOW * errors, side="right")
        start = int((ends - np.arange(len(rows))).argmax())
        plateau = rows.iloc[start : ends[start]]
        near = np.sum((values > values[start] - errors[start]) & (values < values[ends[start] - 1] + errors[start]))
        if _chance(len(plateau), int(near)) > PROBABILITY:
            return
        yield plateau
        rows = rows.drop(plateau.index)


def _chance(k: int, m: int) -> float:
    """Bound on the probability that of m accuracies, spread evenly over two errors, k lie in some window of WINDOW."""
    share = WINDOW / 2
    tail = sum(math.comb(m - 1, j) * share**j * (1 - share) ** (m - 1 - j) for j in range(k - 1, m))
    return m * tail


def _evidence(plateaus: list[pd.DataFrame], rows: pd.DataFrame) -> str:
    parts = [
        f"{len(plateau)} within {span(plateau['value'], '.4f')} ({models(plateau['train'])}; {at_steps(plateau['step'])}; format "
        f"{listed(sorted(plateau['test_format']))})"
        for plateau in plateaus
    ]
    return (
        f"of {len(rows)} accuracies with a standard error of {rows['error'].median():.4f}, {'; '.join(parts)}; this close, most "
        "are one label's share of the rows"
    )
