"""Gold labels that cannot be right: missing, outside the label set, or all of one class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import task
from workflow.audit.inputs import AuditInputs, TestRows, at_steps, finding, listed, method_of, span
from workflow.study import grid

READS, FIRST = ("gold", "reference"), ("suite", *grid.TEST_KEYS)
CERTAIN = 0.999  # an accuracy from which on a base that was never tuned cannot have read the rows
STEPS = 2  # bases that must reach it: a single one may have met the test's one class by chance


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Errors for prepared tests, for scored rows, and for imported accuracies that only rows of one class explain."""
    constant = set()
    for name in material.tasks:
        if task.load(name).test and method_of(name) in ("label", "rank"):
            for row in _prepared(material, name):
                constant.add(name)
                yield row
    yield from _scored(material, constant)
    yield from _imported(material)


def _prepared(material: AuditInputs, name: str) -> Iterator[dict[str, Any]]:
    """Findings on the test rows of a prepared task."""
    read = task.load(name)
    rows = material.examples(name, ["id", "split", "choices", "answer", "gold"]).assign(test=name)
    rows = rows[rows["split"] == read.test]
    wrong = rows[[not _fits(row) for row in rows.itertuples()]]
    if len(wrong):
        evidence = (
            f"{len(wrong)} of {len(rows)} test rows have no gold label among their choices: {listed(wrong['id'])}"
        )
        yield finding("error", rows[["test"]], evidence, value=len(wrong) / len(rows), limit=0.0, n=len(rows))
    elif read.labels and rows["gold"].nunique() == 1 and len(rows) > 1:
        evidence = f"all {len(rows)} test rows have the gold label '{rows['answer'].iloc[0]}'"
        yield finding("error", rows[["test"]], evidence, value=1.0, limit=1.0, n=len(rows))


def _fits(row: Any) -> bool:
    """Whether a row's gold index points at its answer."""
    return pd.notna(row.gold) and 0 <= row.gold < len(row.choices) and row.choices[int(row.gold)] == row.answer


def _scored(material: AuditInputs, known: set[str]) -> Iterator[dict[str, Any]]:
    """Tests with several labels of which the rows drawn by a suite have only one."""
    for keys, reference, n in material.readings(__name__):
        if keys["test"] not in known:
            evidence = f"all {n} scored rows have the gold label '{reference}'"
            yield finding("error", pd.DataFrame([keys]), evidence, value=1.0, limit=1.0, n=n)


def read(test: TestRows, material: AuditInputs) -> tuple[dict[str, Any], str, int] | None:
    """A test with labels of which its rows have only one: keys FIRST, the reference answer, number of rows."""
    if method_of(test.keys["test"]) != "label" or len(test) < 2:
        return None
    rows = test.rows
    if rows["gold"].nunique() > 1:
        return None
    return {key: test.keys[key] for key in FIRST}, str(rows["reference"].iloc[0]), len(rows)


def _imported(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Label tests with an imported accuracy near 1 for several untouched bases."""
    scores = material.imported
    solved = scores[(scores["recipe"] == "none") & (scores["metric"] == "accuracy") & (scores["value"] >= CERTAIN)]
    for (_, _, test), rows in solved.groupby(["family", "suite", "test"]):
        if method_of(test) == "label" and rows["step"].nunique() >= STEPS:
            tuned = scores[(scores["suite"] == rows["suite"].iloc[0]) & (scores["test"] == test)].query(
                "recipe != 'none'"
            )
            beside = f" (of tuned models {span(tuned['value'])})" if len(tuned) else ""
            evidence = (
                f"the accuracy of untouched bases at {at_steps(rows['step'])} is {span(rows['value'], '.4f')} in format "
                f"{listed(sorted(rows['test_format']))}{beside}: this suggests gold labels of one class, as in a split without "
                "labels, and predictions of that class"
            )
            yield finding("error", rows, evidence, value=float(rows["value"].max()), limit=CERTAIN, n=len(rows))
