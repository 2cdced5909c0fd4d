"""Tokens that span the end of a prompt and the start of its answer, which other harnesses score differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, TestRows, finding

READS = ("spanning",)
LIMIT = 0.01  # share of a test's rows; the score may then differ by a point for this reason alone


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each test with such rows that is also imported, on the model with most of them: a warning above LIMIT, else a
    note."""
    table = pd.DataFrame(material.readings(__name__), columns=[*TEST_KEYS, "step", "train", "count", "n"])
    for _, rows in table[table["count"] > 0].groupby(TEST_KEYS):
        worst = rows.loc[rows["count"].idxmax()]
        share = worst["count"] / worst["n"]
        evidence = (
            f"in {worst['count']} of {worst['n']} rows a token spans the end of the prompt and the start of an answer; it is "
            "scored here as part of the answer, while lm-evaluation-harness, which released scores may use, neither reads nor "
            "scores it"
        )
        yield finding(
            "warning" if share > LIMIT else "note", rows, evidence, value=share, limit=LIMIT, n=int(worst["n"])
        )


def read(test: TestRows, material: AuditInputs) -> dict[str, Any] | None:
    """One model on one test that is also imported: the number of rows with such a token; 0 where it was not recorded."""
    if test.keys["test"] not in material.imported_tests:
        return None
    keys = {key: test.keys[key] for key in (*TEST_KEYS, "step", "train")}
    return keys | {"count": int(test.rows["spanning"].eq(True).sum()), "n": len(test)}
