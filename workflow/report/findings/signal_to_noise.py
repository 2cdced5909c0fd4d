"""Tests that distinguish the study's bases (analysis `signal_to_noise`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.report.findings import FindingTables, counting

SECTION = "base"
READS = ("analysis",)
KEYS = ["analysis", "family", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"]
WAY = ["suite", "recipe", "format", "test_format", "shots"]
LISTED = 6


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for untouched bases and one for each recipe's tuned models, in each suite: tests by their ratio."""
    rows = material.analysis[material.analysis["analysis"] == "signal_to_noise"]
    rows = rows[(rows["estimator"] == "signal_to_noise") & rows["value"].notna()]
    rows = rows[(rows["format"] == "none") | (rows["format"] == rows["test_format"])]
    rows = rows.merge(material.ways.drop(columns="family").drop_duplicates(), on=["suite", "test_format", "shots"])
    for _, members in rows.groupby(WAY, sort=False):
        yield _listing(material, rows, members.sort_values("value", ascending=False, kind="stable"))


def _listing(material: FindingTables, rows: pd.DataFrame, members: pd.DataFrame) -> dict[str, Any]:
    """The finding about the tests of one sort of model, the largest ratio first."""
    sure, names = material.significant(members), _named(members)
    distinct, blind = names[sure].tolist(), names[~sure].tolist()
    untouched = members["recipe"].iloc[0] == "none"
    who = "untouched bases" if untouched else "fine-tuned models"
    units = "pairs of task and test" if members["test"].duplicated().any() else "tests"
    rest = f"; not significant:{_list(blind, ' ')}" if blind else ""
    text = (
        f"Signal to noise (arXiv 2508.13144){_way(rows, members)}: {len(distinct)} of {len(members)} {units} show significant "
        f"differences (Holm) between the {who}{_list(distinct)}{rest}. In brackets: the range of the scores divided by its noise."
    )
    return {"section": SECTION if untouched else "tuned"} | counting(text, members, KEYS, float(len(distinct)))


def _named(members: pd.DataFrame) -> pd.Series:
    """Each test with its ratio, and with the fine-tuning task if there are several."""
    several = members["test"].duplicated(keep=False) & (members["train"] != members["test"])
    after = np.where(several, " after " + members["train"].astype(str), "")
    return members["test"] + after + members["value"].map(" ({:.1f})".format)


def _way(rows: pd.DataFrame, members: pd.DataFrame) -> str:
    """The keys that distinguish these tests from those of other findings: suite, recipe, format and number of examples."""
    alike = rows[(rows["recipe"] == "none") == (members["recipe"].iloc[0] == "none")]
    names = [str(members[key].iloc[0]) for key in ("suite", "recipe", "test_format") if alike[key].nunique() > 1]
    names += [f"{members['shots'].iloc[0]}-shot"] if alike["shots"].nunique() > 1 else []
    return f", {', '.join(names)}" if names else ""


def _list(names: list[str], lead: str = ": ") -> str:
    """The first names of a list, and the number of the others."""
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return lead + ", ".join([*names[:LISTED], *more]) if names else ""
