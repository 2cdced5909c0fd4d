"""Indicators that share test rows with a target of their cohort, so that both share sampling noise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

from workflow import task
from workflow.audit.inputs import AuditInputs, TestRows, finding
from workflow.forecasting import own_cohort
from workflow.forecasting.results import Forecasting
from workflow.settings import Target
from workflow.study import grid, indicators

READS, FIRST = ("id",), ("recipe", "train", "suite", *grid.TEST_KEYS)
LIMIT = 0.0  # shared rows: their noise is in both, and other rows are easy to choose

Ids = dict[str, set[str]]  # test -> its scored rows
Scored = dict[tuple[Any, ...], set[str]]


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """A warning for each indicator and target of a cohort of the study's own bases with test rows in common."""
    cohorts = _cohorts(material)
    scored = _scored(material) if cohorts else {}
    for forecasts in cohorts:
        read = {name: _of_indicator(material, material.measures[name], scored) for name in forecasts.cohort.indicators}
        targets = {name: _of_target(block, scored) for name, block in forecasts.block["scored"].items()}
        for (name, ids), (target, others) in itertools.product(read.items(), targets.items()):
            shared = {test: len(rows & others.get(test, set())) for test, rows in ids.items()}
            if total := sum(shared.values()):
                tests = ", ".join(f"{number} of {test}" for test, number in shared.items() if number)
                evidence = (
                    f"indicator {name} and target {target} are scored on {total} of the same test rows ({tests}): their "
                    "noise is in both, so the indicator appears to forecast better than it would on other rows"
                )
                figures = {"value": float(total), "limit": LIMIT, "n": sum(map(len, others.values()))}
                yield {"cohort": forecasts.name, **finding("warning", forecasts.cohort.rows, evidence, **figures)}


def _scored(material: AuditInputs) -> Scored:
    """Ids of the scored rows by recipe, task tuned on, suite and test; the same for all bases."""
    return dict(material.readings(__name__))


def read(test: TestRows, material: AuditInputs) -> tuple[tuple[Any, ...], set[str]] | None:
    """The ids of a test's scored rows, where a cohort is of the study's own bases."""
    return (tuple(test.keys[key] for key in FIRST), set(test["id"])) if _cohorts(material) else None


def _cohorts(material: AuditInputs) -> list[Forecasting]:
    """Cohorts of the study's own bases."""
    return [
        forecasts
        for forecasts in material.forecasting
        if "scored" in forecasts.block and len(forecasts.cohort.rows) > 1
    ]


def _of_indicator(material: AuditInputs, settings: Mapping[str, Any], scored: Scored) -> Ids:
    """The ids of the test rows that an indicator reads, by test."""
    if settings["measure"] == indicators.SCORED:
        scores = material.scores[
            (material.scores["recipe"] == "none") & (material.scores["suite"] == settings["suite"])
        ]
        tests = settings.get("tests") or scores.loc[scores["metric"] == settings["metric"], "test"].unique()
        key = ("none", "none", settings["suite"])
        return {test: scored.get((*key, test, settings["format"], settings["shots"]), set()) for test in tests}
    if settings.get("rows") == "test":
        return {test: _answered(material, settings, test) for test in settings["tests"]}
    return {}


def _answered(material: AuditInputs, settings: Mapping[str, Any], test: str) -> set[str]:
    """The ids of a test's rows whose answers an indicator reads."""
    rows, known = material.examples(test, ["id", "split"]), task.load(test)
    # Only the ids are read, so the rows come without their examples.
    train, tests_read = (
        [(row, cast(Any, None)) for row in rows.loc[rows["split"] == split, "id"]]
        for split in (known.train, known.test)
    )
    return {row for row, _ in indicators.answered(settings, train, tests_read)[1]}


def _of_target(target: Target, scored: Scored) -> Ids:
    """The ids of the test rows that a target is scored on, by test."""
    ids: Ids = {}
    for train, test in own_cohort.tunings(target):
        key = (target["recipe"], train, target["suite"], test, target["format"], target["shots"])
        ids.setdefault(test, set()).update(scored.get(key, set()))
    return ids
