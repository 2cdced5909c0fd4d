"""What tuning changes elsewhere: on other tasks of its kind, and on tasks of other kinds, at the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow import drawing
from workflow.findings import Material, about, finding

SECTION = "transfer"
READS = ("analysis",)
KEYS = [
    "analysis", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each test of tuning's own kind; of tests of other kinds one for each that changes, and one for
    each model that counts the rest."""
    rows = material.last(material.rows("tuning_difference", "difference_of_means"))
    near = drawing.related(rows, {"out_of_domain"})
    yield from (_changed(material, near, row, told) for row, told in _ranked(material, near))
    far = drawing.related(rows, {"cross_task"})
    told = material.told(far)
    yield from (_changed(material, far, row, True) for row, sure in _ranked(material, far) if sure)
    for _, own in far.groupby([*drawing.PLACE, "train", "format", "recipe"], sort=False):
        yield _rest(far, own, int((~told[own.index]).sum()))


def _ranked(material: Material, rows: pd.DataFrame) -> Iterator[tuple[pd.Series, bool]]:
    """Rows by their change, the worst first, and whether it can be told from 0."""
    told = material.told(rows)
    for place, row in rows.sort_values("value", kind="stable").iterrows():
        yield row, bool(told[place])


def _changed(material: Material, rows: pd.DataFrame, row: pd.Series, told: bool) -> dict[str, Any]:
    change, step = material.interval(row), f"at step {int(row['step'])}"
    near = drawing.relation(row["train"], row["test"]) == "out_of_domain"
    kind = "out of its domain" if near else "of another kind"
    name = f"{row['train']}{about(rows, row, 'recipe')}"
    if not told:
        known = "is not known to differ" if pd.isna(row["low"]) else "cannot be told"
        text = f"Tuning on {name}: on {row['test']}, {kind}, the change of {change} {step} {known} from 0."
    else:
        verb = "helps" if row["value"] > 0 else "hurts"
        text = f"Tuning on {name} {verb} on {row['test']}, {kind}: {change} {step}."
    return finding(text, row, KEYS)


def _rest(rows: pd.DataFrame, own: pd.DataFrame, same: int) -> dict[str, Any]:
    """How many tests of other kinds a tuning leaves as they were, as far as can be told."""
    row = own.iloc[0]
    name = f"{row['train']}{about(rows, row, 'recipe')}"
    text = f"Tuning on {name}: on {same} of {len(own)} tests of other kinds the change cannot be told from 0."
    keys = [key for key in KEYS if key != "test"]
    return finding(text, row, keys, value=same, low=None, high=None, n=len(own))
