"""From a study's config to its tables of bases, models and cells. No torch, no network: it runs at each start."""

from __future__ import annotations

import itertools
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import pandas as pd

from workflow import config as configs
from workflow import figures as figure_modules
from workflow import sources, task
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
    for name in study["recipes"]:
        _known("recipes", [name], [key for key in study["recipes"] if key != "none"])
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
    return study


def _known(place: str, found: Iterable[str], allowed: Iterable[str]) -> None:
    """StudyError unless all found names are allowed ones."""
    legal = sorted(allowed)
    for name in found:
        if name not in legal:
            raise StudyError(f"config.yaml: {place}: {name!r} is not known; allowed: {', '.join(legal) or 'none'}")


def _check_training_tasks(place: str, found: Sequence[str]) -> None:
    """StudyError unless each task is known and has a training split."""
    _known(place, found, [name for name in task.names() if name in found and task.load(name).train] or task.names())


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
            _known(f"models/{number}/steps", map(str, block["steps"]), map(str, chosen["step"]))
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
