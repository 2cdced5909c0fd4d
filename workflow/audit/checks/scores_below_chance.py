"""Accuracies below chance, as from label words that never occur, outputs that are not recognised, or swapped labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import task
from workflow.audit.inputs import AuditInputs, at_steps, finding, listed, method_of, models, span
from workflow.evaluation import metric_names
from workflow.study import grid

ERRORS = 3.0  # standard errors: a study looks at hundreds of scores, at 2 one in twenty would differ
FAR = 0.75  # of chance: a constant answer on unbalanced classes is seldom lower


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A finding for each test: a warning for untouched bases far below chance, which cannot have learned an inverted rule; else a
    note."""
    scores = material.scores[material.scores["metric"] == "accuracy"]
    others = material.imported[~material.imported["test"].isin(metric_names.parts(material.imported))]
    scores = pd.concat([scores.assign(chance=_chance(scores)), _with_chance(others)])
    scores = scores.assign(untouched=scores["recipe"] == "none")
    guessed = (scores["chance"] * (1 - scores["chance"]) / scores["n"].astype(float)) ** 0.5
    error = guessed.fillna(scores["error"])
    low = scores[scores["value"] + ERRORS * error < scores["chance"]]
    for (*_, untouched), rows in low.groupby(["family", "suite", "test", "untouched"]):
        least, chance = float(rows["value"].min()), float(rows["chance"].iloc[0])
        evidence = (
            f"below chance ({chance:.3f}): {models(rows['train'])} at {at_steps(rows['step'])} score {span(rows['value'])} "
            f"(formats {listed(sorted(rows['test_format']))}; {listed(sorted(rows['shots']))}-shot)"
        )
        severity = "warning" if untouched and least < FAR * chance else "note"
        yield finding(severity, rows, evidence, value=least, limit=chance, n=len(rows))


def _with_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """Imported accuracies in other metric names, with the chance level that the same release states."""
    keys = ["family", "step", "suite", *grid.TEST_KEYS]
    stated = scores.loc[scores["metric"] == "chance", [*keys, "value"]].rename(columns={"value": "chance"})
    primary = metric_names.primary(scores)
    binary = primary["metric"].map(metric_names.base).isin(metric_names.BINARY) & (primary["metric"] != "accuracy")
    return primary[binary].merge(stated.drop_duplicates(keys), on=keys)


def _chance(scores: pd.DataFrame) -> pd.Series:
    """Accuracy of a uniform guess among the labels; NaN for tests without labels."""
    labels = {test: len(task.labels(test)) for test in scores["test"].unique() if method_of(test) == "label"}
    return 1 / scores["test"].map(labels).astype(float)
