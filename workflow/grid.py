"""From a study's config to its tables of bases, models and cells. No torch, no network: it runs at each start."""

from __future__ import annotations

import itertools
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import pandas as pd

from workflow import config as configs
from workflow import corpora, sources, task
from workflow import figures as figure_modules
from workflow.errors import StudyError

BASE_KEYS = ["family", "step"]
MODEL_KEYS = [*BASE_KEYS, "train", "format", "recipe", "seed"]
CELL_KEYS = [*MODEL_KEYS, "suite"]
TEST_KEYS = ["test", "test_format", "shots"]
UNTOUCHED = {"train": "none", "format": "none", "recipe": "none", "seed": 0}


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The study behind a config: defaults filled in, every name in it known.

    Errors: StudyError naming key and legal values.
    """
    study = configs.validated(config)
    for name, family in study["families"].items():
        if family["source"] == "trained":
            _check_pretraining(f"families/{name}/pretraining", family["pretraining"])
    for number, block in enumerate(study["models"]):
        place = f"models/{number}"
        _known(f"{place}/families", block.get("families", []), study["families"])
        _known(f"{place}/recipes", block["recipes"], study["recipes"])
        _check_training_tasks(f"{place}/train", block["train"])
    for name, suite in study["suites"].items():
        _known(f"suites/{name}/tests", suite["tests"], task.names())
        _known(f"suites/{name}/train", suite.get("train", []), _trained_on(study))
    tested = {test for suite in study["suites"].values() for test in suite["tests"]}
    for name, group in study["groups"].items():
        _known(f"groups/{name}", group, _trained_on(study))
        for train, tests in group.items():
            _known(f"groups/{name}/{train}", tests, tested)
    _known("figures", study["figures"], modules(figure_modules))
    _check_inputs(study)
    return study


def _known(place: str, found: Iterable[str], allowed: Iterable[str]) -> None:
    """StudyError unless all found names are allowed ones."""
    legal = sorted(set(allowed))
    for name in found:
        if name not in legal:
            listed = ", ".join(map(str, legal)) or "none"
            raise StudyError(f"config.yaml: {place}: {name!r} is not known; allowed: {listed}")


def _check_pretraining(place: str, block: Mapping[str, Any]) -> None:
    """StudyError unless sizes and steps of a training from scratch fit each other."""
    for key, found, fits, allowed in (
        ("heads", block["heads"], block["hidden"] % block["heads"] == 0, f"divisors of hidden ({block['hidden']})"),
        ("sequence", block["sequence"], block["sequence"] <= block["context"], f"context ({block['context']}) or less"),
        ("save", max(block["save"]), max(block["save"]) <= block["steps"], f"steps ({block['steps']}) or less"),
    ):
        if not fits:
            raise StudyError(f"config.yaml: {place}/{key}: {found} is not allowed; allowed: {allowed}")


def _check_inputs(study: Mapping[str, Any]) -> None:
    """StudyError unless every local file that the study reads is there, the generated ones left out."""
    root = study["data_root"]
    for family in study["families"].values():
        text = family.get("pretraining")
        if text and text["corpus"] != corpora.GENERATED:
            corpora.files(corpora.folder(text, root), text.get("domains"))
    for name in tasks(study):
        if task.load(name).hub:
            task.check_files(name, root)


def _check_training_tasks(place: str, found: Sequence[str]) -> None:
    """StudyError unless each task is known and has a training split."""
    _known(place, found, task.names())
    for name in found:
        if not task.load(name).train:
            legal = ", ".join(other for other in task.names() if task.load(other).train)
            raise StudyError(f"config.yaml: {place}: {name!r} has no training split; allowed: {legal}")


def _trained_on(study: Mapping[str, Any]) -> set[str]:
    """All tasks that some model of the study is tuned on."""
    return {name for block in study["models"] for name in block["train"]}


def modules(package: ModuleType) -> list[str]:
    """Names of the modules in a package, sorted: the registry of figures and of analyses."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def bases(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each base: columns BASE_KEYS."""
    rows = [(name, step) for name, family in study["families"].items() for step in sources.steps(name, family)]
    return pd.DataFrame(rows, columns=BASE_KEYS)


def models(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model, the untouched bases (recipe `none`) first: columns MODEL_KEYS."""
    all_bases = bases(study)
    tables = [all_bases.assign(**UNTOUCHED)]
    for number, block in enumerate(study["models"]):
        chosen = all_bases[all_bases["family"].isin(block.get("families", list(study["families"])))]
        if "steps" in block:
            _known(f"models/{number}/steps", block["steps"], chosen["step"])
            chosen = chosen[chosen["step"].isin(block["steps"])]
        axes = itertools.product(block["train"], block["formats"], block["recipes"], block["seeds"])
        tables.append(chosen.merge(pd.DataFrame(axes, columns=MODEL_KEYS[2:]), how="cross"))
    return pd.concat(tables, ignore_index=True)[MODEL_KEYS].drop_duplicates(ignore_index=True)


def cells(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model on each suite meant for it: columns CELL_KEYS."""
    all_models = models(study)
    tables = []
    for name, suite in study["suites"].items():
        meant = ["none", *suite.get("train", _trained_on(study))]
        tables.append(all_models[all_models["train"].isin(meant)].assign(suite=name))
    return pd.concat(tables, ignore_index=True)[CELL_KEYS]


def tests(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each test of each suite: columns suite and TEST_KEYS."""
    rows = [
        (name, *row)
        for name, suite in study["suites"].items()
        for row in itertools.product(suite["tests"], suite["formats"], suite["shots"])
    ]
    return pd.DataFrame(rows, columns=["suite", *TEST_KEYS])


def tasks(study: Mapping[str, Any]) -> list[str]:
    """All tasks the study reads, trained on or tested, sorted."""
    return sorted(_trained_on(study) | {test for suite in study["suites"].values() for test in suite["tests"]})


def path(keys: Mapping[str, Any], names: Sequence[str]) -> str:
    """Hive path of a row: `family=olmo/step=1000/…` over the named keys."""
    return "/".join(f"{name}={keys[name]}" for name in names)


def pattern(names: Sequence[str]) -> str:
    """Hive path with a wildcard for each key: `family={family}/step={step}/…`."""
    return "/".join(f"{name}={{{name}}}" for name in names)
