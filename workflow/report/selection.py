"""Selects the rows that a figure or finding shows, and names them. Does not import the drawing code, which takes a second.

Rows are those of the analysis, in the columns of `tables.ANALYSIS` with `analysis` and `origin` (see `overlaid`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from workflow import task
from workflow.data.prompts import FORMATS
from workflow.errors import StudyError
from workflow.evaluation import metric_names

PLACE = ["family", "suite"]
WAY = ["test_format", "shots"]
SHARED = ["analysis", "group", "train", "format", "test", "test_format", "shots"]  # keys of a cell except its step
METRICS = ("chance", "majority")  # scores of a test that need no model


def overlaid(analysis: pd.DataFrame, overlays: Mapping[str, str]) -> pd.DataFrame:
    """The analysis with a column `origin`, and imported families laid over the study's family: overlays, own -> imported.

    Rows of an imported family become rows of the own one, `published` (all others: `family`), in each suite of the own
    family that has the same cell, its step aside: task and format of tuning, test, test format and demonstrations. Other
    imported rows of the family are left out; of a cell in several imported suites the suite with most rows is taken.
    Recipes keep their own names.
    Errors: StudyError for an imported family without rows, or without any such cell.
    """
    rows = analysis.assign(origin="own")
    published = []
    for family, imported in overlays.items():
        key_path = f"config.yaml: overlays/{family}"
        imported_rows = rows[rows["family"] == imported]
        if imported_rows.empty:
            families = ", ".join(sorted(rows["family"].dropna().unique()))
            raise StudyError(f"{key_path}: found no scores of '{imported}'; allowed: {families}")
        places = rows.loc[rows["family"] == family, [*SHARED, "suite"]].drop_duplicates()
        laid = (
            _main_suites(imported_rows)
            .drop(columns="suite")
            .merge(places, on=SHARED)
            .assign(family=family, origin="published")
        )
        if laid.empty:
            raise StudyError(
                f"{key_path}: found no test that '{imported}' was put to in the same way, expected at least one"
            )
        published.append(laid[rows.columns])
    return pd.concat([rows[~rows["family"].isin(overlays.values())], *published], ignore_index=True)


def _main_suites(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one family with each cell in a single suite, the one with most rows."""
    size = rows["suite"].map(rows["suite"].value_counts())
    return rows[size == size.groupby([rows[key] for key in SHARED], dropna=False).transform("max")]


def only(analysis: pd.DataFrame, name: str, *estimators: str) -> pd.DataFrame:
    """The rows of one analysis and of some or all of its estimators, each suite in its main way of testing (see `chosen`)."""
    rows = analysis[analysis["analysis"] == name]
    return chosen(rows[rows["estimator"].isin(estimators)] if estimators else rows)


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each family and suite in its main way of testing: the most frequent format and number of few-shot
    examples.

    Fine-tuned models count, and are kept, if they are tested in the format of their fine-tuning. Suites without such a model
    are left out. If no suite has one, the bases count. Ties go to the first format and the fewest examples.
    """
    same_format = rows["format"] == rows["test_format"]
    shown = rows[same_format] if same_format.any() else rows[rows["train"] == "none"]
    counts = shown[shown["origin"] == "own"].groupby([*PLACE, *WAY]).size().reset_index(name="rows")
    counts["rank"] = counts["test_format"].map({name: index for index, name in enumerate(FORMATS)})
    best = counts.sort_values(["rows", "rank", "shots"], ascending=[False, True, True]).drop_duplicates(PLACE)
    candidates = rows[same_format | (rows["train"] == "none")]
    return candidates.merge(best[[*PLACE, *WAY]], on=[*PLACE, *WAY])


def relation(train: str, test: str) -> str:
    """Relation of a test to a fine-tuning task: `base` (not fine-tuned), `instructed` (fine-tuned on conversations),
    `in_domain`, `out_of_domain` (same kind), `cross_task`, or `benchmark` if either is no task of Tunecast, so that its
    kind is unknown.
    """
    if train == "none":
        return "base"
    if task.in_domain(train, test):
        return "in_domain"
    if not all(map(task.known, (test, *task.components(train)))):
        return "benchmark"
    if task.on_instructions(train):
        return "instructed"
    return "out_of_domain" if task.alike(train, test) else "cross_task"


def related(rows: pd.DataFrame, relations: Collection[str]) -> pd.DataFrame:
    """The rows whose test has one of these relations to the fine-tuning task."""
    is_related = [relation(train, test) in relations for train, test in zip(rows["train"], rows["test"], strict=True)]
    return rows[np.array(is_related, dtype=bool)]


def with_bases(tuned: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Fine-tuned models, after the untouched bases on the same tests."""
    keys = [*PLACE, "test"]
    return pd.concat([rows[rows["train"] == "none"].merge(tuned[keys].drop_duplicates(), on=keys), tuned])


def test_order(analysis: pd.DataFrame) -> dict[str, int]:
    """Rank of each test among panels or rows: by kind, fine-tuning tasks first, then by name."""
    tuned = tuned_on(analysis)
    tests = set(analysis["test"].dropna())
    order = sorted(tests, key=lambda name: (kind_place(name), name not in tuned, name))
    return {name: index for index, name in enumerate(order)}


def kind_place(name: str) -> int:
    """Rank of a task's kind; tests that are no task here come last."""
    kinds = list(task.KINDS)
    return kinds.index(str(task.kind(name))) if task.known(name) else len(kinds)


def tuned_on(analysis: pd.DataFrame) -> set[str]:
    """All tasks and mixes that some model is fine-tuned on."""
    return set(analysis["train"].dropna()) - {"none"}


def named(name: str) -> str:
    """Readable name of a group."""
    return name.replace("_", " ").replace("pretraining", "pre-training")


def metric_label(test: str, scores: pd.DataFrame | None = None) -> str:
    """Name of a test's metric for an axis: that of the scores, else that of the task."""
    names = [] if scores is None else metric_names.primary(scores[scores["test"] == test])["metric"].unique()
    return metric_names.label(names[0] if len(names) else metric_names.PRIMARY[str(task.method(test))])


def place_label(rows: pd.DataFrame, family: str, suite: str, first: str = "") -> str:
    """Label of a panel: its subject, and below it suite and family if the figure has several."""
    several = [name for name, key in ((suite, "suite"), (family, "family")) if rows[key].nunique() > 1]
    return "\n".join(part for part in (first, ", ".join(several)) if part)


def baseline_values(scores: pd.DataFrame, **where: Any) -> dict[str, float]:
    """Chance and majority of a test, if it has them. where: family, suite, test."""
    rows = scores[(scores[list(where)] == pd.Series(where)).all(axis=1)]
    values_of = {metric: rows.loc[rows["metric"] == metric, "value"] for metric in METRICS}
    return {metric: float(values.iloc[0]) for metric, values in values_of.items() if len(values)}
