"""A cohort of the study's bases: one table of their config fields, indicators and scores after fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workflow.errors import StudyError
from workflow.evaluation import metric_names
from workflow.forecasting import settings
from workflow.forecasting.cohorts import BASE, FEWEST, RUN
from workflow.forecasting.splits import names as split_names
from workflow.models import checkpoints
from workflow.settings import Cohort as CohortBlock
from workflow.settings import Family, Study, Target
from workflow.study import token_axis
from workflow.study.families import NO_VALUE
from workflow.training import missing_models


def bases(study: Study, block: CohortBlock) -> list[dict[str, Any]]:
    """Return the bases of a cohort: family, step, and the config fields that the block names.

    Means of checkpoints are left out: they share a run with the family that they average. A field that a family lacks is
    `none`.

    Errors: StudyError for a field that no family has.
    """
    named = block.get("families", study["families"])
    chosen = {name: family for name in named if (family := study["families"][name])["source"] != "merged"}
    known_bases = [
        _known(name, family, step) for name, family in chosen.items() for step in checkpoints.steps(name, family)
    ]
    for field in block["fields"]:
        if not any(field in known for known in known_bases):
            allowed = sorted({key for known in known_bases for key in known})
            raise StudyError(
                f"config.yaml: cohorts: field {field!r} is not known; allowed: {', '.join(allowed)}, or what `fields` of the "
                "families name"
            )
    return [
        {
            "family": known["family"],
            "step": known["step"],
            "config": {f: known.get(f, NO_VALUE) for f in block["fields"]},
        }
        for known in known_bases
    ]


def _known(name: str, family: Family, step: int) -> dict[str, Any]:
    """Return all config fields of a base; values other than numbers and text become JSON text."""
    pretraining = family.get("pretraining", {})
    seen = token_axis.of_family(name, family).get(step)
    tokens = {} if seen is None else {"tokens": int(seen)}
    known = {"step": step, "family": name, **tokens, **pretraining, **family.get("fields", {})}
    return {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in known.items()}


def splits(study: Study, block: CohortBlock) -> list[str]:
    """Return the possible splits of a cohort; with few bases or runs of the study, only the first one."""
    few = settings.assembled(block) and len(set(_runs(bases(study, block)))) < FEWEST
    return split_names([] if few else block["fields"])[: 1 if few else None]


def _runs(bases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the pre-training run of each base: its family, or the base itself if all are of one family."""
    single = len({base["family"] for base in bases}) == 1
    return [_name(base) if single else base["family"] for base in bases]


def _name(base: Mapping[str, Any]) -> str:
    """Return the name of a base in the table."""
    return f"{base['family']}@{base['step']}"


def table(
    block: CohortBlock,
    bases: Sequence[Mapping[str, Any]],
    scores: pd.DataFrame,
    indicators: pd.DataFrame,
    missing: Sequence[missing_models.Hole] = (),
) -> pd.DataFrame:
    """Return one row for each base: columns BASE, RUN, fields, indicators, targets; missing values are null.

    bases: as the function `bases` returns them; scores: the gathered table; indicators: `aggregation.values`; missing: models
    missing from the study. A base that diverged with one seed has no such score, since a mean over the other seeds would be
    biased upwards. In a cohort of several families, bases of one pre-training run are one RUN. In a single family each base is
    its own RUN, since the only question is which of its steps to choose.
    """
    keys = pd.DataFrame({"family": [b["family"] for b in bases], "step": [b["step"] for b in bases]})
    whole = pd.DataFrame({BASE: [_name(base) for base in bases], RUN: _runs(bases)}).join(
        pd.DataFrame([dict(base["config"]) for base in bases])
    )
    columns = {name: _joined(keys, indicators[indicators["indicator"] == name]) for name in block["indicators"]}
    scores = missing_models.without(scores, missing, missing_models.LINE_KEYS)
    columns |= {name: _joined(keys, target(scores, target_block)) for name, target_block in block["targets"].items()}
    return whole.assign(**columns)


def _joined(keys: pd.DataFrame, rows: pd.DataFrame) -> list[float]:
    """Return the value of each base in the order of the keys, null if there is none."""
    merged = keys.merge(rows[["family", "step", "value"]], on=["family", "step"], how="left", validate="one_to_one")
    return list(merged["value"].astype(float))


def target(scores: pd.DataFrame, target_block: Target) -> pd.DataFrame:
    """Return the plain mean over a target's tests for each base: family, step, value (arXiv 2504.12491, section 2.1).

    Seeds are averaged first. A base without one of the tests has no row: the mean is never over fewer.
    """
    tests = tunings(target_block)
    keys = {
        "recipe": target_block["recipe"],
        "suite": target_block["suite"],
        "format": target_block["format"],
        "test_format": target_block["format"],
    }
    selected = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1) & (scores["shots"] == target_block["shots"])]
    selected = selected[_metric(selected, target_block.get("metric"))]
    by_test = selected.groupby(["family", "step", "train", "test"])["value"].mean().unstack(["train", "test"])
    wanted = [by_test[pair] if pair in by_test else pd.Series(float("nan"), by_test.index) for pair in tests]
    means = pd.concat(wanted, axis=1).mean(axis=1, skipna=False) if len(by_test) else pd.Series(dtype=float)
    index = pd.MultiIndex.from_tuples(means.index, names=["family", "step"])
    return pd.DataFrame({"value": means.to_numpy()}, index=index).dropna().reset_index()


def tunings(target_block: Target) -> list[tuple[str, str]]:
    """Return the (training task, test) pairs of a target's mean."""
    tests = target_block["tests"]
    if isinstance(tests, Mapping):
        return [(train, test) for train, tests_of_train in tests.items() for test in tests_of_train]
    return [(name, name) for name in tests]


def _metric(scores: pd.DataFrame, metric: str | None) -> Any:
    """Return a mask of rows with a metric; without one, with each test's primary metric."""
    if metric is None:
        return scores.index.isin(metric_names.primary(scores).index)
    return scores["metric"] == metric


def questions(study: Study) -> dict[str, dict[str, Any]]:
    """Return targets of the study's cohorts that are means over several tests: name -> tests, and other keys of the scores."""
    return {name: target for name, target in targets(study).items() if len(target["tests"]) > 1}


def targets(study: Study) -> dict[str, dict[str, Any]]:
    """Return all targets of the study's own cohorts: name -> tests, and other keys of the scores (`way`)."""
    blocks = [block["targets"] for block in study["cohorts"].values() if settings.assembled(block)]
    return {
        name: {
            "tests": tunings(target_block),
            "way": {"test_format": target_block["format"]}
            | {key: target_block[key] for key in ("recipe", "suite", "shots")},
        }
        for target_blocks in blocks
        for name, target_block in target_blocks.items()
    }


def names(study: Study) -> list[str]:
    """Return the names of the study's own cohorts."""
    return [name for name, block in study["cohorts"].items() if settings.assembled(block)]
