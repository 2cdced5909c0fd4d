"""Changes by tuning on other tasks of the same kind and on tasks of other kinds, at the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.report import selection
from workflow.report.findings import FindingTables, about, counting, finding
from workflow.statistics import POWER

SECTION = "transfer"
READS = ("analysis",)
KEYS = [
    "analysis", "family", "step", "train", "format", "recipe", "suite", "test", "test_format", "shots", "estimator"
]  # fmt: skip


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each test of the same kind as the fine-tuning task; for tests of other kinds one for each significant
    change, and one for each model that counts the others. Holm's procedure is over all of them.
    """
    rows = material.last(material.rows("tuning_difference", "difference_of_means"))
    rows = selection.related(rows, {"out_of_domain", "cross_task"})
    sure, verdicts, small = material.significant(rows), material.verdicts(rows), material.detectable(rows)
    better = material.improvements(rows) > 0
    near, far = selection.related(rows, {"out_of_domain"}), selection.related(rows, {"cross_task"})
    for members in (near, far[sure[far.index]]):
        for index, row in members.sort_values("value", kind="stable").iterrows():
            yield _changed(
                near if members is near else far, row, better[index] if sure[index] else None, verdicts[index], material
            )
    for _, members in far.groupby([*selection.PLACE, "train", "format", "recipe"], sort=False):
        yield _rest(far, members, small[members.index][~sure[members.index]])


def _changed(
    rows: pd.DataFrame, row: pd.Series, better: bool | None, verdict: str, material: FindingTables
) -> dict[str, Any]:
    """The finding about one change. better: whether it is an improvement; None if it is not significant."""
    near = selection.relation(row["train"], row["test"]) == "out_of_domain"
    kind = "out of its domain" if near else "of another kind"
    name = f"{row['train']}{about(rows, row, 'recipe')}"
    change = f"{material.interval(row)} at step {int(row['step'])}: {verdict}."
    verb = "helps" if better else "hurts"
    text = (
        f"{verb} on {row['test']}, {kind}: {change}"
        if better is not None
        else f"changes {row['test']}, {kind}, by {change}"
    )
    return finding(f"Tuning on {name} {text}", row, KEYS)


def _rest(rows: pd.DataFrame, members: pd.DataFrame, detectable: pd.Series) -> dict[str, Any]:
    """The number of tests of other kinds without a significant change, with the change that is detectable on each."""
    row, tested = members.iloc[0], detectable.dropna()
    known = tested[np.isfinite(tested)]
    name = f"{row['train']}{about(rows, row, 'recipe')}"
    text = f"Tuning on {name}: on {len(detectable)} of {len(members)} tests of other kinds the change is not significant (Holm)"
    if len(known):
        text += f"; detectable change {known.max():.3f} on {_each(len(known), len(detectable))} (power {POWER:g})"
    if len(known) < len(tested):
        text += f"; no possible change is detectable on {len(tested) - len(known)} of them (power {POWER:g})"
    if len(tested) < len(detectable):
        text += f"; {len(detectable) - len(tested)} of them not tested, since the uncertainty is unknown"
    return counting(f"{text}.", members, KEYS, len(detectable))


def _each(count: int, whole: int) -> str:
    return "each of them" if count == whole else f"{count} of them"
