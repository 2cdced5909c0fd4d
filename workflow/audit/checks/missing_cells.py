"""Cells that a table has for some models and lacks for others, so that means are over different things or left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.audit.inputs import AuditInputs, at_steps, counted, finding, listed
from workflow.evaluation import metric_names
from workflow.study import grid
from workflow.training.missing_models import LINE_KEYS

MODELS = ["family", "train", "format", "recipe", "seed", "suite"]
HALF = 0.5  # of the steps: a test with more of them is meant as a curve and has gaps, one with fewer is a side run


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Warnings for holes, gaps in curves and tuned models without their base; notes for side runs and empty analyses.

    A study's own cells are all there but for the holes that it allows, or it would not have come this far.
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
    """Models that are missing because their tuning diverged, one by one, and what becomes of their other seeds."""
    for hole in material.holes:
        keys = {key: hole[key] for key in grid.MODEL_KEYS}
        own = material.scores.loc[(material.scores[LINE_KEYS] == pd.Series(hole)[LINE_KEYS]).all(axis=1), "seed"]
        others = f"; its other seeds ({listed(sorted(own.unique()))}) are in no analysis" if len(own) else ""
        evidence = f"hole: no score of this model, since its tuning diverged: {hole['reason']}{others}"
        yield finding("warning", pd.DataFrame([keys]), evidence, n=1)


def _lines(scores: pd.DataFrame) -> pd.DataFrame:
    """Each test of each line of models that lacks steps which others of its suite have."""
    scores = metric_names.primary(scores)
    steps = scores.groupby(["family", "suite"])["step"].unique()
    # A run of bases alone is often tested at other steps with demonstrations than without: each number has its own curve.
    ways = scores.groupby(["family", "suite", "shots"])["step"].unique()
    tuned = set(scores.loc[scores["train"] != "none", "family"])
    rows = []
    for keys, own in scores.groupby([*MODELS, *grid.TEST_KEYS]):
        there = dict(zip([*MODELS, *grid.TEST_KEYS], keys, strict=True))
        place = (there["family"], there["suite"])
        wanted = set(steps[place] if there["family"] in tuned else ways[(*place, there["shots"])])
        if absent := sorted(wanted - set(own["step"])):
            facts = {"absent": absent, "wanted": len(wanted), "gap": len(absent) < HALF * len(wanted)}
            rows.append(there | facts)
    return pd.DataFrame(rows, columns=[*MODELS, *grid.TEST_KEYS, "absent", "wanted", "gap"]).astype({"gap": bool})


def _finding(severity: str, rows: pd.DataFrame, what: str) -> dict[str, Any]:
    missing, wanted = int(rows["absent"].map(len).sum()), int(rows["wanted"].sum())
    parts = [
        f"{'' if row.train == 'none' else f'{row.train} to '}{row.test} ({row.test_format}, {row.shots} shots) lacks "
        f"{at_steps(row.absent)}"
        for row in rows.itertuples()
    ]
    evidence = f"{what}: {missing} of {wanted} cells are missing: {'; '.join(parts)}"
    return finding(severity, rows, evidence, value=missing / wanted, limit=0.0, n=wanted)


def _without_base(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """Scores of tuned models whose untouched base was not tested in the same way: no difference is made of them."""
    alone = material.changes[material.changes["base"].isna()]
    keys = ["train", "test", "test_format", "shots"]
    for _, rows in alone.groupby(["family", "suite"]):
        cells = [
            f"{train} to {test} ({format}, {shots} shots) at {at_steps(own['step'])}"
            for (train, test, format, shots), own in rows.groupby(keys)
        ]
        evidence = (
            f"no difference to a base: {counted(len(rows), 'score')} of tuned models without a base tested in the same way: "
            f"{'; '.join(cells)}"
        )
        yield finding("warning", rows, evidence, value=float(len(rows)), limit=0.0, n=len(material.changes))


def _empty(analysis: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Analyses with rows without a value, which are left empty rather than made of fewer cells."""
    for name, whole in analysis.groupby("analysis"):
        rows = whole[whole["value"].isna()]
        if len(rows):
            counts = rows.groupby([rows["group"].fillna("no group"), "estimator"]).size().items()
            parts = [f"{count} of {estimator} ({group})" for (group, estimator), count in counts]
            evidence = (
                f"{len(rows)} of {len(whole)} rows of analysis {name} have no value, since cells that they are made of are "
                f"missing or do not allow one: {listed(parts, 9)}"
            )
            yield finding("note", rows, evidence, value=len(rows) / len(whole), limit=0.0, n=len(whole))
