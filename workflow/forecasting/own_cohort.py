"""A cohort of the study's own bases: their configs, indicators and scores after tuning, set beside each other."""

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
from workflow.study import token_axis
from workflow.study.families import NO_VALUE
from workflow.training import missing_models


def bases(study: Mapping[str, Any], block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bases of a cohort, one dict each: family, step, and the config fields that the block names.

    A field that a family does not have is `none`. Errors: StudyError for a field that no family has.
    """
    chosen = {name: study["families"][name] for name in block.get("families", study["families"])}
    found = [_known(name, family, step) for name, family in chosen.items() for step in checkpoints.steps(name, family)]
    for field in block["fields"]:
        if not any(field in known for known in found):
            allowed = sorted({key for known in found for key in known})
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
        for known in found
    ]


def _known(name: str, family: Mapping[str, Any], step: int) -> dict[str, Any]:
    """All config fields of a base; what is neither number nor word in the config becomes its JSON text."""
    how = family.get("pretraining", {})
    seen = token_axis.of_family(name, family).get(step)
    tokens = {} if seen is None else {"tokens": int(seen)}
    known = {"step": step, "family": name, **tokens, **how, **family.get("fields", {})}
    return {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in known.items()}


def splits(study: Mapping[str, Any], block: Mapping[str, Any]) -> list[str]:
    """The splits of a cohort, as far as the config tells; few bases or runs of the study's own are in a single one."""
    few = settings.assembled(block) and len(set(_runs(bases(study, block)))) < FEWEST
    return split_names([] if few else block["fields"])[: 1 if few else None]


def _runs(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pre-training run of each base: its family, or the base itself where all are of one family."""
    single = len({base["family"] for base in found}) == 1
    return [_name(base) if single else base["family"] for base in found]


def _name(base: Mapping[str, Any]) -> str:
    """What a base is called in the table."""
    return f"{base['family']}@{base['step']}"


def table(
    block: Mapping[str, Any],
    found: Sequence[Mapping[str, Any]],
    scores: pd.DataFrame,
    indicators: pd.DataFrame,
    missing: Sequence[Mapping[str, Any]] = (),
) -> pd.DataFrame:
    """One row for each base: columns BASE, RUN, fields, indicators, targets; what a base lacks is null.

    found: `bases`; scores: the gathered table; indicators: `aggregation.values`; missing: models that the study lacks.
    A base whose tuning diverged with one seed lacks that score: a mean over the seeds that did not would flatter it.
    Bases of one pre-training run are one RUN in a cohort of several families, otherwise each is its own: within a single
    run all that can be asked is which of its steps to take.
    """
    keys = pd.DataFrame({"family": [b["family"] for b in found], "step": [b["step"] for b in found]})
    whole = pd.DataFrame({BASE: [_name(base) for base in found], RUN: _runs(found)}).join(
        pd.DataFrame([dict(base["config"]) for base in found])
    )
    columns = {name: _joined(keys, indicators[indicators["indicator"] == name]) for name in block["indicators"]}
    scores = missing_models.without(scores, missing, missing_models.LINE_KEYS)
    columns |= {name: _joined(keys, target(scores, how)) for name, how in block["targets"].items()}
    return whole.assign(**columns)


def _joined(keys: pd.DataFrame, rows: pd.DataFrame) -> list[float]:
    """The value of each base in the order of the keys, null where there is none."""
    merged = keys.merge(rows[["family", "step", "value"]], on=["family", "step"], how="left", validate="one_to_one")
    return list(merged["value"].astype(float))


def target(scores: pd.DataFrame, how: Mapping[str, Any]) -> pd.DataFrame:
    """The plain mean over the tests of a target for each base: columns family, step, value (arXiv 2504.12491, section 2.1).

    Seeds are averaged first. A base without one of the tests has no row: the mean is never over fewer.
    """
    tests = tunings(how)
    keys = {"recipe": how["recipe"], "suite": how["suite"], "format": how["format"], "test_format": how["format"]}
    own = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1) & (scores["shots"] == how["shots"])]
    own = own[_metric(own, how.get("metric"))]
    by_test = own.groupby(["family", "step", "train", "test"])["value"].mean().unstack(["train", "test"])
    wanted = [by_test[pair] if pair in by_test else pd.Series(float("nan"), by_test.index) for pair in tests]
    means = pd.concat(wanted, axis=1).mean(axis=1, skipna=False) if len(by_test) else pd.Series(dtype=float)
    index = pd.MultiIndex.from_tuples(means.index, names=["family", "step"])
    return pd.DataFrame({"value": means.to_numpy()}, index=index).dropna().reset_index()


def tunings(how: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Task tuned on and test of each score that a target is the mean of."""
    tests = how["tests"]
    if isinstance(tests, Mapping):
        return [(train, test) for train, own in tests.items() for test in own]
    return [(name, name) for name in tests]


def _metric(scores: pd.DataFrame, metric: str | None) -> Any:
    """Rows in a metric; without one, in that which each test is read in."""
    if metric is None:
        return scores.index.isin(metric_names.primary(scores).index)
    return scores["metric"] == metric


def questions(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The targets of the study's own cohorts that are means over several tests: name -> tests, and the way of testing."""
    own = [block["targets"] for block in study["cohorts"].values() if settings.assembled(block)]
    return {
        name: {
            "tests": tunings(how),
            "way": {"test_format": how["format"]} | {key: how[key] for key in ("recipe", "suite", "shots")},
        }
        for targets in own
        for name, how in targets.items()
        if len(tunings(how)) > 1
    }
