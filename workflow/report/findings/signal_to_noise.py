"""Tests that distinguish the study's bases (analysis `signal_to_noise`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report.findings import FindingTables, finding

SECTION = "base"
READS = ("analysis",)
KEYS = ["analysis", "family", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"]
COUNTED = [key for key in KEYS if key not in ("train", "format", "recipe", "test")]
LISTED = 6


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for untouched bases and one for models tuned on the tests, in each suite: tests by their ratio."""
    rows = material.analysis[material.analysis["analysis"] == "signal_to_noise"]
    rows = rows[(rows["estimator"] == "signal_to_noise") & rows["value"].notna()]
    rows = rows.merge(material.ways.drop(columns="family").drop_duplicates(), on=["suite", "test_format", "shots"])
    for (suite, untouched), own in rows.groupby(["suite", rows["train"] == "none"], sort=False):
        yield _listing(material, str(suite), bool(untouched), own.sort_values("value", ascending=False, kind="stable"))


def _listing(material: FindingTables, suite: str, untouched: bool, own: pd.DataFrame) -> dict[str, Any]:
    """The finding about the tests of one sort of model, the largest ratio first."""
    sure = material.significant(own)
    names = [f"{row['test']} ({row['value']:.1f})" for _, row in own[sure].iterrows()]
    blind = [f"{row['test']} ({row['value']:.1f})" for _, row in own[~sure].iterrows()]
    who = "untouched bases" if untouched else "models tuned on them"
    suite_name = f", {suite}" if material.ways["suite"].nunique() > 1 else ""
    text = (
        f"Signal to noise (arXiv 2508.13144){suite_name}: {len(names)} of {len(own)} tests show significant differences (Holm) "
        f"between the {who}{_list(names)}{f'; not significant:{_list(blind, chr(32))}' if blind else ''}. In brackets: the range "
        "of the scores divided by its noise."
    )
    figures: dict[str, Any] = {"value": float(len(names)), "low": None, "high": None, "n": len(own)}
    return {"section": SECTION if untouched else "tuned"} | finding(text, own.iloc[0], COUNTED, **figures)


def _list(names: list[str], lead: str = ": ") -> str:
    """The first names of a list, and the number of the others."""
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return lead + ", ".join([*names[:LISTED], *more]) if names else ""
