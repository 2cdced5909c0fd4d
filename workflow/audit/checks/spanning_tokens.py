"""Tokens that span the end of a prompt and the beginning of its answer, which others score otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, finding

LIMIT = 0.01  # share of a test's rows from which on its score may differ by a point for that alone


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test with such rows that others have scored too, of the model with most of them: a warning above
    LIMIT, below it a note."""
    others = set(material.imported["test"])
    found = [_read(test) for test in material.predictions("spanning") if test["test"].iloc[0] in others]
    table = pd.DataFrame(found, columns=[*TEST_KEYS, "step", "train", "count", "n"])
    for _, rows in table[table["count"] > 0].groupby(TEST_KEYS):
        worst = rows.loc[rows["count"].idxmax()]
        share = worst["count"] / worst["n"]
        evidence = (
            f"in {worst['count']} of {worst['n']} rows a token spans the end of the prompt and the beginning of an answer; it is "
            "scored here as part of the answer, which lm-evaluation-harness, whose way released scores may follow, neither reads "
            "nor scores"
        )
        yield finding(
            "warning" if share > LIMIT else "note", rows, evidence, value=share, limit=LIMIT, n=int(worst["n"])
        )


def _read(test: pd.DataFrame) -> dict[str, Any]:
    """One model on one test: its rows with such a token; none where it was not looked for."""
    keys = {key: test[key].iloc[0] for key in (*TEST_KEYS, "step", "train")}
    return keys | {"count": int(test["spanning"].eq(True).sum()), "n": len(test)}
