"""Cells that some models have and others lack, so that means cover different cells or are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, at_steps, counted, finding, listed
from workflow.evaluation import metric_names
from workflow.study import grid
from workflow.training.missing_models import LINE_KEYS

MODELS = ["family", "train", "format", "recipe", "seed", "suite"]
HALF = 0.5  # of the steps: a test with more is a curve with gaps, a test with fewer is a side run


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Warnings for missing models, gaps in curves and tuned models without a base; notes for side runs and empty analyses.

    Cells of the study itself are complete, except for the missing models that its config allows.
    """
    yield from _holes(material)
    lines = _lines(material.imported)
    for _, rows in lines[lines["gap"]].groupby(MODELS):
        yield _finding("warning", rows, "gaps in curves")
    for _, rows in lines[~lines["gap"]].groupby(["family", "suite"]):
        yield _finding("note", rows, "side runs, at few of the steps")
    yield from _without_base(material)
    yield from _empty(material.analysis)


def _holes(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each model that is missing because fine-tuning diverged, with its other seeds."""
    for hole in material.holes:
        keys = {key: hole[key] for key in grid.MODEL_KEYS}
        seeds = material.scores.loc[(material.scores[LINE_KEYS] == pd.Series(hole)[LINE_KEYS]).all(axis=1), "seed"]
        others = f"; its other seeds ({listed(sorted(seeds.unique()))}) are left out of analyses" if len(seeds) else ""
        evidence = f"hole: no score of this model, since its tuning diverged: {hole['reason']}{others}"
        yield finding("warning", pd.DataFrame([keys]), evidence, n=1)


def _lines(scores: pd.DataFrame) -> pd.DataFrame:
    """Each test of each line of models that lacks steps of its suite, with `gap`: whether it has most steps."""
    scores = metric_names.primary(scores)
    steps = scores.groupby(["family", "suite"])["step"].unique()
    # Bases alone are often evaluated few-shot at other steps than zero-shot: each number of shots has its own curve.
    ways = scores.groupby(["family", "suite", "shots"])["step"].unique()
    tuned = set(scores.loc[scores["train"] != "none", "family"])
    rows = []
    for keys, line in scores.groupby([*MODELS, *grid.TEST_KEYS]):
        cell = dict(zip([*MODELS, *grid.TEST_KEYS], keys, strict=True))
        cell_keys = (cell["family"], cell["suite"])
        wanted = set(steps[cell_keys] if cell["family"] in tuned else ways[(*cell_keys, cell["shots"])])
        if absent := sorted(wanted - set(line["step"])):
            facts = {"absent": absent, "wanted": len(wanted), "gap": len(absent) < HALF * len(wanted)}
            rows.append(cell | facts)
    return pd.DataFrame(rows, columns=[*MODELS, *grid.TEST_KEYS, "absent", "wanted", "gap"]).astype({"gap": bool})


def _finding(severity: str, rows: pd.DataFrame, title: str) -> dict[str, Any]:
    missing, wanted = int(rows["absent"].map(len).sum()), int(rows["wanted"].sum())
    parts = [
        f"{'' if row.train == 'none' else f'{row.train} to '}{row.test} ({row.test_format}, {row.shots} shots) lacks "
        f"{at_steps(row.absent)}"
        for row in rows.itertuples()
    ]
    evidence = f"{title}: {missing} of {wanted} cells are missing: {'; '.join(parts)}"
    return finding(severity, rows, evidence, value=missing / wanted, limit=0.0, n=wanted)


def _without_base(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Scores of tuned models without a base evaluated with the same format and shots: they have no difference to a base."""
    alone = material.changes[material.changes["base"].isna()]
    keys = ["train", "test", "test_format", "shots"]
    for _, rows in alone.groupby(["family", "suite"]):
        cells = [
            f"{train} to {test} ({format}, {shots} shots) at {at_steps(members['step'])}"
            for (train, test, format, shots), members in rows.groupby(keys)
        ]
        evidence = (
            f"no difference to a base: {counted(len(rows), 'score')} of tuned models without a base evaluated in the same way: "
            f"{'; '.join(cells)}"
        )
        yield finding("warning", rows, evidence, value=float(len(rows)), limit=0.0, n=len(material.changes))


def _empty(analysis: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Analyses with rows without a value: they are left empty instead of computed from fewer cells."""
    for name, whole in analysis.groupby("analysis"):
        rows = whole[whole["value"].isna()]
        if len(rows):
            counts = rows.groupby([rows["group"].fillna("no group"), "estimator"]).size().items()
            parts = [f"{count} of {estimator} ({group})" for (group, estimator), count in counts]
            evidence = (
                f"{len(rows)} of {len(whole)} rows of analysis {name} have no value, since it cannot be computed from the cells: "
                f"{listed(parts, 9)}"
            )
            yield finding("note", rows, evidence, value=len(rows) / len(whole), limit=0.0, n=len(whole))
