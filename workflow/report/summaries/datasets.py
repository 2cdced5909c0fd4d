"""The datasets of a study: their role, size and licence (arXiv 2408.06663, Tables 1 and 7)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workflow import task
from workflow.evaluation import metric_names
from workflow.report.selection import relation
from workflow.report.summaries import StudyTables

READS = ()
NEEDS = ()
SECTION = "study"
RELATIONS = {"instructed": "after", "in_domain": "in domain of", "out_of_domain": "out of domain of"}
COLUMNS = [
    *("task", "kind", "role", "hub", "subset", "train_split", "train_rows", "test_split", "test_rows"),
    *("scored", "metric", "labels", "licence"),
]


def summarise(material: StudyTables) -> pd.DataFrame:
    """One row for each fine-tuning task or test; imported tests without a task in Tunecast come last.

    Columns COLUMNS. role: `tuned on`, also `in` a mix, and for a test its relation to each fine-tuning task of its kind,
    `transfer` if there is none and `tested` if no fine-tuned model was tested; splits: those that Tunecast reads, which a
    release may not have used; train_rows, test_rows: as prepared, else as stated by the dataset; scored: scored rows, fewer
    than test_rows if a suite sets a limit.
    """
    cells = material.scores[["train", "test"]].drop_duplicates()
    trains = {name for train in set(cells["train"]) - {"none"} for name in task.components(train)}
    scored = material.scores.groupby("test")["n"].max()
    rows = [_row(name, cells, material) | {"scored": scored.get(name)} for name in sorted(trains | set(cells["test"]))]
    known = sorted(rows, key=lambda row: row["task"] not in task.names())
    return pd.DataFrame(known, columns=COLUMNS).convert_dtypes()


def _row(name: str, cells: pd.DataFrame, material: StudyTables) -> dict[str, Any]:
    """The row of one task."""
    tuned = sorted(set(cells.loc[cells["test"] == name, "train"]) - {"none"})
    if name not in task.names():
        return {"task": name, "role": "tested"}
    loaded = task.load(name)
    counts: dict[Any, int] = {**loaded.sizes, **material.rows.get(name, {})}
    roles = ["tuned on"] if name in set(cells["train"]) else []
    mixes = {train for train in cells["train"] if name in task.components(train)} - {name}
    roles += [f"tuned on in {train}" for train in sorted(mixes)]
    near = [(relation(train, name), train) for train in tuned if train not in {name, *mixes}]
    roles += [f"{RELATIONS[kinship]} {train}" for kinship, train in near if kinship in RELATIONS]
    return {
        "task": name,
        "kind": loaded.kind,
        "role": "; ".join(roles) or ("transfer" if tuned else "tested"),
        "hub": loaded.hub,
        "subset": loaded.subset,
        "train_split": loaded.train,
        "train_rows": counts.get(loaded.train),
        "test_split": loaded.test,
        "test_rows": counts.get(loaded.test),
        "metric": _metric(loaded),
        "labels": ", ".join(loaded.labels) or None,
        "licence": loaded.licence,
    }


def _metric(loaded: task.Task) -> str | None:
    """The primary metric; None for a task that is only fine-tuned on."""
    return metric_names.main(loaded, loaded.metrics)
