"""Training rows that two tasks of a mix share, so that their input counts twice in one fine-tuning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import task
from workflow.audit.inputs import AuditInputs, finding, inputs, listed

LIMIT = 0.01  # share of the smaller task's rows


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each mix and pair of its tasks with the same inputs in their training rows: a warning above LIMIT, else a
    note.

    A recipe may use only some of the training rows, so the share is an upper bound.
    """
    for train in sorted(set(material.scores["train"])):
        for pair in itertools.combinations(task.components(train), 2):
            rows = [inputs(material, name, task.load(name).train) for name in pair]
            yield from _shared(train, pair, sorted(rows, key=len))


def _shared(train: str, pair: tuple[str, str], rows: list[pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """rows: inputs of both tasks, the smaller one first."""
    smaller, larger = rows
    common = smaller[smaller["text"].isin(set(larger["text"]))]
    if common.empty:
        return
    share = len(common) / len(smaller)
    answers = common.merge(larger, on="text", suffixes=("", "_other"))
    differing = answers.loc[answers["answer"] != answers["answer_other"], "id"].nunique()
    evidence = (
        f"{' and '.join(pair)} of the mix {train} have the same input in {len(common)} of {len(smaller)} training rows, with "
        f"another answer in {differing}: {listed(common['id'])}"
    )
    keys = pd.DataFrame([{"train": train}])
    yield finding("warning" if share > LIMIT else "note", keys, evidence, value=share, limit=LIMIT, n=len(smaller))
