"""The base to tune for a task, or to use untouched: sentences of the table of recommendations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.analysis.analyses.extrapolation import ASSUMED, COVERAGE
from workflow.audit.inputs import listed
from workflow.evaluation import metric_names
from workflow.report.findings import counting

SECTION = "answer"
READS = ("recommendations",)
TOPICS = (
    "answer",
    "cheapest",
    "pretraining",
)  # the other topics, one row for each base or indicator, stay in the table
KEPT = ("statement", "value", "low", "high", "n", "table", "filter")


def find(material: Any) -> Iterator[dict[str, Any]]:
    """The recommendations of TOPICS as findings, in the order of the table.

    For untouched bases: the answers for tests that are not part of a mean, and one finding on the later pre-training of all
    families together.
    """
    table = material.tables["recommendations"]
    parts = metric_names.parts(material.tables["scores"]) if "scores" in material.tables else set()
    for row in table[(table["recipe"] != "none") & table["topic"].isin(TOPICS)].to_dict("records"):
        yield {name: row[name] for name in KEPT} | {"pairs": material.targets.get(row["task"], {}).get("tests", ())}
    untouched = table[(table["recipe"] == "none") & ~table["task"].isin(parts)]
    for row in untouched[untouched["topic"] == "answer"].to_dict("records"):
        yield {name: row[name] for name in KEPT}
    later = untouched[(untouched["topic"] == "pretraining") & untouched["low"].notna()]
    for title, members in later.groupby(later["statement"].str.split(": ").str[0], sort=False):
        yield _together(title, members)


def _together(title: str, rows: pd.DataFrame) -> dict[str, Any]:
    """The forecast change of one test in all families: the families whose interval excludes 0."""
    rising, falling = (sorted(rows.loc[selected, "family"]) for selected in (rows["low"] > 0, rows["high"] < 0))
    parts = [
        f"its {100 * COVERAGE:g} % interval lies {side} 0 in {len(selected)} ({listed(selected)})"
        for side, selected in (("above", rising), ("below", falling))
        if selected
    ]
    rest = len(rows) - len(rising) - len(falling)
    parts += [f"in {rest} the interval includes no change"] if rest else []
    text = (
        f"{title}: forecast change of the score with more pre-training, in {len(rows)} families: {'; '.join(parts)}. "
        f"{ASSUMED}."
    )
    selected = pd.DataFrame([json.loads(row) for row in rows["filter"]])
    return counting(text, selected, list(selected.columns), float(len(rising)))
