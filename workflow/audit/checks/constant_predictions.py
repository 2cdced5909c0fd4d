"""Models that predict one label for (nearly) all rows, so that their accuracy is that label's share of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow.audit.inputs import TEST_KEYS, AuditInputs, TestRows, at_steps, finding, method_of, models, span
from workflow.evaluation import metrics

READS = ("choices", "logprobs", "output", "gold")
CLASSES = ("label", "rank")  # methods that choose among candidates
CONSTANT = 0.99  # share of one label; the remaining predictions hardly change the accuracy
ERRORS = 3.0  # standard errors from chance: a study looks at hundreds of scores, at 2 one in twenty would differ


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test, severity and task that models were tuned on (`none` for untouched ones).

    A test with labels gets a warning: the model ignores its input, so its accuracy is a label's share of the rows, and so is
    one side of every difference to it. Where each row has choices of its own, only the position is constant: a warning if the
    accuracy differs from chance, or if a group of the study contains the model; else a note. Tests of free text have no labels;
    their `choices` are the accepted answers.
    """
    table = pd.DataFrame(
        material.readings(__name__), columns=[*TEST_KEYS, "step", "train", "share", "label", "accuracy", "chance", "n"]
    )
    claimed = {(train, test) for group in material.groups.values() for train, tests in group.items() for test in tests}
    sizes = table.groupby([*TEST_KEYS, "train"]).size()
    constant = table[table["share"] >= CONSTANT].copy()
    error = np.sqrt(constant["chance"] * (1 - constant["chance"]) / constant["n"])
    apart = (constant["accuracy"] - constant["chance"]).abs() > ERRORS * error
    pairs = np.array([pair in claimed for pair in zip(constant["train"], constant["test"], strict=True)], dtype=bool)
    labels = constant["test"].map(method_of) == "label"
    constant["severity"] = np.where(labels | apart | pairs, "warning", "note")
    for (*keys, severity, train), rows in constant.groupby([*TEST_KEYS, "severity", "train"]):
        evidence = f"{rows['test'].iloc[0]}: {_evidence(rows, int(sizes[(*keys, train)]))}"
        yield finding(severity, rows, evidence, value=float(rows["share"].max()), limit=CONSTANT, n=len(rows))


def read(test: TestRows, material: AuditInputs) -> dict[str, Any] | None:
    """One model on one test: its most frequent prediction, the share of it, the accuracy and chance."""
    if method_of(test.keys["test"]) not in CLASSES:
        return None
    predicted = _predicted(test)
    values, counts = np.unique(predicted, return_counts=True)
    share = counts.max() / len(test)
    constant = share >= CONSTANT
    rows = test.rows if constant else pd.DataFrame()
    return {key: test.keys[key] for key in (*TEST_KEYS, "step", "train")} | {
        "share": share,
        "label": _name(rows, int(values[counts.argmax()])) if constant else "",
        "accuracy": float((predicted == metrics.gold(rows)).mean()) if constant else np.nan,
        "chance": float(metrics.chance(rows).mean()) if constant else np.nan,
        "n": len(test),
    }


def _predicted(test: TestRows) -> NDArray[np.int64]:
    """The predicted choice of each row (`metrics.predicted`)."""
    if all(len(scores) for scores in test["logprobs"]):
        return metrics.largest(test["logprobs"])
    return metrics.predicted(test.rows.assign(protocol=test.keys["protocol"]))


def _name(test: pd.DataFrame, label: int) -> str:
    """The label at a position of the choices; the position where each row has choices of its own."""
    if label < 0:
        return "no label"
    names = {row[label] for row in test["choices"] if label < len(row)}
    return f"'{names.pop()}'" if len(names) == 1 else f"choice {label + 1}"


def _evidence(rows: pd.DataFrame, count: int) -> str:
    parts = [
        f"{label} from {len(own)} at {at_steps(own['step'])} (accuracy {span(own['accuracy'])})"
        for label, own in rows.groupby("label")
    ]
    return (
        f"{len(rows)} of {count} {models(rows['train'])} predict one label in at least {CONSTANT:.0%} of the rows (chance "
        f"{rows['chance'].iloc[0]:.3f}): {'; '.join(parts)}"
    )
