"""Test rows whose input occurs verbatim in the fine-tuning data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import task
from workflow.audit.inputs import AuditInputs, finding, inputs, listed

LIMIT = 0.01  # share of rows; below it the overlap moves a score by less than a point


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each task tuned on and test that share inputs: a warning above LIMIT, else a note.

    A recipe may use only some of the training rows, so the share is an upper bound.
    """
    pairs = material.scores[["train", "test"]].drop_duplicates()
    pairs = pairs.assign(train=pairs["train"].map(task.components)).explode("train").drop_duplicates()
    for train, tested in pairs[pairs["train"].isin(material.tasks)].groupby("train"):
        seen = set(inputs(material, train, task.load(train).train)["text"])
        for test in sorted(set(tested["test"]) & set(material.tasks)):
            yield from _overlap(material, train, test, seen)


def _overlap(material: AuditInputs, train: str, test: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    rows = inputs(material, test, task.load(test).test)
    shared = rows[rows["text"].isin(seen)]
    if len(shared):
        share = len(shared) / len(rows)
        evidence = (
            f"the inputs of {len(shared)} of {len(rows)} test rows occur verbatim in training rows of {train}: "
            f"{listed(shared['id'])}"
        )
        keys = pd.DataFrame([{"train": train, "test": test}])
        yield finding("warning" if share > LIMIT else "note", keys, evidence, value=share, limit=LIMIT, n=len(rows))
