"""Exact matches in which output and answer are both empty after SQuAD's normalisation.

SQuAD's normalisation drops case, punctuation and the articles a, an and the, so an empty output exactly matches an answer such
as "A" or ")". The normalisation is kept, since published scores use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, TestRows, finding, listed, method_of, models
from workflow.evaluation import metrics

READS = ("id", "output", "choices")
LIMIT = 0.01  # share of a test's rows; such matches then move its score by a point


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each test with such rows, on the model with most of them: a warning above LIMIT, else a note."""
    table = pd.DataFrame(
        material.readings(__name__), columns=[*TEST_KEYS, "step", "train", "ids", "answers", "count", "n"]
    )
    for _, rows in table[table["count"] > 0].groupby(TEST_KEYS):
        worst = rows.loc[rows["count"].idxmax()]
        share = worst["count"] / worst["n"]
        evidence = (
            f"{worst['count']} of {worst['n']} outputs count as exact matches without a word, since the metric normalises "
            f"answers such as {listed(map(repr, worst['answers']), 3)} to an empty text: rows {listed(worst['ids'])} of "
            f"{models([worst['train']])} at step {worst['step']}"
        )
        yield finding(
            "warning" if share > LIMIT else "note", rows, evidence, value=share, limit=LIMIT, n=int(worst["n"])
        )


def read(test: TestRows, material: AuditInputs) -> dict[str, Any] | None:
    """One model on one test that compares outputs with answers: the rows where an empty text matches an empty text, and the
    answers that become empty."""
    if method_of(test.keys["test"]) != "answer":
        return None
    empty = [not metrics.plain(metrics.first_line_of(output)) for output in test["output"]]
    if not any(empty):
        return None
    rows = test.rows[empty]
    matched = rows[metrics.exact_match(rows) == 1]
    answers = [one for choices in matched["choices"] for one in choices if not metrics.plain(one)]
    keys = {key: test.keys[key] for key in (*TEST_KEYS, "step", "train")}
    return keys | {"ids": list(matched["id"]), "answers": answers, "count": len(matched), "n": len(test)}
