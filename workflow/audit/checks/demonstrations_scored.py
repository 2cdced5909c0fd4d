"""Scored rows whose own answer is in the prompt, as a few-shot example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, TestRows, finding, listed

READS = ("id", "shown")
LIMIT = 0.0  # a single such row is a flaw of the protocol


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each test with few-shot examples among its scored rows; a note where the examples are not recorded."""
    table = pd.DataFrame(material.readings(__name__), columns=[*TEST_KEYS, "unknown", "scored", "n", "ids"])
    for _, rows_of_test in table[table["scored"] > 0].groupby(TEST_KEYS):
        worst = rows_of_test.loc[rows_of_test["scored"].idxmax()]
        share = worst["scored"] / worst["n"]
        evidence = (
            f"{worst['scored']} of {worst['n']} scored rows are also few-shot examples, with their answer in their own prompt: "
            f"{listed(worst['ids'])}"
        )
        yield finding("warning", rows_of_test, evidence, value=share, limit=LIMIT, n=int(worst["n"]))
    if len(unknown := table[table["unknown"]]):
        evidence = (
            f"the few-shot predictions of {len(unknown)} tests do not record the ids of the examples, so whether scored rows are "
            "among them is not known"
        )
        yield finding("note", unknown, evidence, n=len(unknown))


def read(test: TestRows, material: AuditInputs) -> dict[str, Any] | None:
    """The number and ids of a test's rows that are their own few-shot example."""
    if not test.keys["shots"]:
        return None
    known = test.rows
    known = known[known["shown"].notna()]
    ids = [row.id for row in known.itertuples() if row.id in list(row.shown)]
    facts = {"unknown": known.empty, "scored": len(ids), "n": len(test), "ids": ids}
    return {key: test.keys[key] for key in TEST_KEYS} | facts
