"""Time of a study's jobs by stage and fine-tuning task, measured by Snakemake (arXiv 2408.06663, v5 Table 4, v1 Table 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from workflow.report.summaries import StudyTables
from workflow.study import grid

READS = ("families", "models", "recipes", "suites")
NEEDS = ("suites",)
SECTION = "cost"
KEYS = ["stage", "family", "train", "suite"]


def summarise(material: StudyTables) -> pd.DataFrame:
    """One row for each stage, family, fine-tuning task and suite, and their sum: columns KEYS, jobs, measured, hours,
    unmeasured.

    hours: wall time of the measured jobs times their number of GPUs if there are any; for a repeated job its last run; null
    if none was measured. unmeasured: the keys of jobs without a measurement.
    """
    jobs = [{**job, "seconds": material.seconds(f"{job['stage']}/{job['job']}")} for job in _jobs(material)]
    measured = pd.DataFrame(jobs).astype({"seconds": float})
    measured["seconds"] *= measured["gpus"]
    rows = [
        {**dict(zip(KEYS, keys, strict=True)), **_sum(part)}
        for keys, part in measured.groupby(KEYS, sort=False, dropna=False)
    ]
    return pd.DataFrame([*rows, {"stage": "all", **_sum(measured)}])


def _jobs(material: StudyTables) -> Iterator[dict[str, Any]]:
    """Each job of a stage that uses a GPU if there is one: its keys, path and number of GPUs."""
    study = material.study
    models = grid.models(study)
    stages = {
        "pretrain": (grid.BASE_KEYS, grid.pieces(study)),
        "try_rate": (grid.TRIAL_KEYS, grid.trials(study).to_dict("records")),
        "tune": (grid.MODEL_KEYS, models[models["recipe"] != "none"].to_dict("records")),
        "predict": (grid.PART_KEYS, grid.parts(study).to_dict("records")),
    }
    for stage, (keys, rows) in stages.items():
        for row in rows:
            counted = {key: row.get(key) for key in KEYS[1:]}
            yield {"stage": stage, **counted, "job": grid.path(row, keys), "gpus": grid.gpus(study, row)}


def _sum(part: pd.DataFrame) -> dict[str, Any]:
    """The summed time of several jobs."""
    missing = part.loc[part["seconds"].isna(), "job"]
    return {
        "jobs": len(part),
        "measured": len(part) - len(missing),
        "hours": part["seconds"].sum(min_count=1) / 3600,
        "unmeasured": "; ".join(missing) or None,
    }
