"""Exact matches of nothing: outputs and answers that both lose every word when they are compared as SQuAD does.

SQuAD's rule drops case, punctuation and the articles a, an and the, so that an empty output is an exact match of an answer such
as "A" or ")". The rule is kept, since published scores are made by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, finding, listed, method_of, models
from workflow.evaluation import metrics

LIMIT = 0.01  # share of a test's rows from which on such matches move its score by a point


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test with such rows, of the model with most of them: a warning above LIMIT, below it a note."""
    found = [_read(test) for test in material.predictions("id", "output", "choices") if _is_compared(test)]
    table = pd.DataFrame(found, columns=[*TEST_KEYS, "step", "train", "ids", "answers", "count", "n"])
    for _, rows in table[table["count"] > 0].groupby(TEST_KEYS):
        worst = rows.loc[rows["count"].idxmax()]
        share = worst["count"] / worst["n"]
        evidence = (
            f"{worst['count']} of {worst['n']} outputs without a word are exact matches: the metric reduces answers such as "
            f"{listed(map(repr, worst['answers']), 3)} to nothing: rows {listed(worst['ids'])} of {models([worst['train']])} "
            f"at step {worst['step']}"
        )
        yield finding(
            "warning" if share > LIMIT else "note", rows, evidence, value=share, limit=LIMIT, n=int(worst["n"])
        )


def _is_compared(test: pd.DataFrame) -> bool:
    """Whether the outputs of a test are compared with answers."""
    return method_of(test["test"].iloc[0]) == "answer"


def _read(test: pd.DataFrame) -> dict[str, Any]:
    """One model on one test: its rows in which nothing matches nothing, and the answers that are reduced to it."""
    matched = test[[not metrics.plain(own) for own, _ in metrics.lines(test)] & (metrics.exact_match(test) == 1)]
    answers = [one for choices in matched["choices"] for one in choices if not metrics.plain(one)]
    keys = {key: test[key].iloc[0] for key in (*TEST_KEYS, "step", "train")}
    return keys | {"ids": list(matched["id"]), "answers": answers, "count": len(matched), "n": len(test)}
