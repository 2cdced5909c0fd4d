"""Tables of a study's bases, models and cells, from its config. Runs at each start, without torch and network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from workflow import registry, task
from workflow.data import corpora
from workflow.data.demonstrations import shots
from workflow.errors import MistakesError, StudyError
from workflow.models import checkpoints
from workflow.settings import Recipe, ReplayText, Study, Suite
from workflow.study import adopted, indicators
from workflow.study import config as configs

BASE_KEYS = ["family", "step"]
MODEL_KEYS = [*BASE_KEYS, "train", "format", "recipe", "seed"]
CELL_KEYS = [*MODEL_KEYS, "suite"]
PART_KEYS = [*CELL_KEYS, "tests"]
TEST_KEYS = ["test", "test_format", "shots"]
CHOICE_KEYS = ["family", "train", "format", "recipe"]
OWN_CHOICE_KEYS = [*BASE_KEYS, "train", "format", "recipe"]  # of a search for each base
TRIAL_KEYS = [*OWN_CHOICE_KEYS, "rate"]
UNTOUCHED = {"train": "none", "format": "none", "recipe": "none", "seed": 0}
WHOLE = "all"  # name of the only part of a cell


def collected(study: Study) -> list[str]:
    """The corpora that a study reads from the hub."""
    trained = [family["pretraining"] for family in study["families"].values() if "pretraining" in family]
    replayed = [recipe["replay_text"] for recipe in study["recipes"].values() if "replay_text" in recipe]
    blocks: list[Any] = [*trained, *study["indicators"].values(), *replayed]
    names = {block["corpus"] for block in blocks if "corpus" in block}
    return sorted(name.removeprefix(corpora.HUB) for name in names if name.startswith(corpora.HUB))


def pieces(study: Study) -> list[dict[str, Any]]:
    """Family and step of each piece of pre-training: the saved steps up to the last one that the study uses."""
    return [
        {"family": name, "step": step}
        for name, family in study["families"].items()
        if family["source"] == "trained"
        for step in sorted(family["pretraining"]["save"])
        if step <= max(checkpoints.steps(name, family))
    ]


def passage_files(study: Study, name: str) -> list[str]:
    """The files of passages that a task's contexts are retrieved from; none for a task without contexts.

    Errors: StudyError if a task needs passages and the config has none.
    """
    if not task.load(name).retrieved:
        return []
    block = study["passages"]
    if block is None:
        raise StudyError(f"config.yaml: passages: missing; expected the text to retrieve contexts of {name!r} from")
    if corpora.made(block["corpus"]):
        raise StudyError(
            f"config.yaml: passages/corpus: {block['corpus']!r} is not allowed; allowed: a folder with text domains"
        )
    folder = corpora.folder(block, study["data_root"], "passages/corpus")
    return [str(path) for path in corpora.files(folder, block.get("domains"), block["split"])]


def trained_on(study: Study) -> set[str]:
    """All tasks and mixes that models of the study were fine-tuned on, here or elsewhere."""
    return tuned_on_here(study) | {model.keys["train"] for model in adopted.models(study)}


def tuned_on_here(study: Study) -> set[str]:
    """All tasks and mixes that the study fine-tunes on."""
    return {name for block in study["models"] for name in block["train"]}


def bases(study: Study) -> pd.DataFrame:
    """One row for each base: columns BASE_KEYS."""
    rows = [(name, step) for name, family in study["families"].items() for step in checkpoints.steps(name, family)]
    return pd.DataFrame(rows, columns=BASE_KEYS)


def models(study: Study) -> pd.DataFrame:
    """One row for each model: untouched bases (recipe `none`), models fine-tuned here, models fine-tuned elsewhere. Columns
    MODEL_KEYS."""
    all_bases = bases(study)
    tables = [all_bases.assign(**UNTOUCHED)]
    for block in study["models"]:
        chosen = all_bases[all_bases["family"].isin(block.get("families", list(study["families"])))]
        if "steps" in block:
            chosen = chosen[chosen["step"].isin(block["steps"])]
        axes = itertools.product(block["train"], block["formats"], block["recipes"], block["seeds"])
        tables.append(chosen.merge(pd.DataFrame(axes, columns=MODEL_KEYS[2:]), how="cross"))
    elsewhere = [model.keys for model in adopted.models(study)]
    tables += [pd.DataFrame(elsewhere)] if elsewhere else []
    return pd.concat(tables, ignore_index=True)[MODEL_KEYS].drop_duplicates(ignore_index=True)


def tuned_here(study: Study) -> pd.DataFrame:
    """One row for each model that the study tunes itself: columns MODEL_KEYS."""
    all_models = models(study)
    return all_models[~all_models["recipe"].isin(["none", *study.get("adopted", {})])]


def trials(study: Study) -> pd.DataFrame:
    """One row for each trial of a listed learning rate; `rate` is its index in the list: columns TRIAL_KEYS.

    A search for a family tries all rates on the bases of `search/steps`, by default on the last base that is fine-tuned. A search
    for each base tries some of the rates on every base that is fine-tuned, at most those listed here.
    """
    rows = []
    for keys, tuned in models(study).groupby(CHOICE_KEYS, sort=False):
        family, train, format, name = keys
        recipe = study["recipes"].get(name)
        if recipe is None or "search" not in recipe or not isinstance(recipe["learning_rate"], list):
            continue
        search = study["recipes"][name]["search"]
        last = int(tuned["step"].max())
        steps = sorted(set(tuned["step"])) if searches_each_base(study, name) else search.get("steps", [last])
        for step, rate in itertools.product(steps, range(len(study["recipes"][name]["learning_rate"]))):
            rows.append((family, step, train, format, name, rate))
    return pd.DataFrame(rows, columns=TRIAL_KEYS)


def searches_each_base(study: Study, recipe: str) -> bool:
    """Whether a recipe searches a learning rate for each base, not one for a family."""
    return study["recipes"][recipe].get("search", {}).get("per") == "base"


def choice_keys(study: Study, recipe: str) -> list[str]:
    """The keys of one search of a recipe: CHOICE_KEYS, or OWN_CHOICE_KEYS if each base has a search of its own."""
    return OWN_CHOICE_KEYS if searches_each_base(study, recipe) else CHOICE_KEYS


def rate_twins(study: Study) -> list[tuple[str, str]]:
    """Pairs of recipes that differ only in the learning rate: one rate for a family, and a rate for each base, by name."""

    def others(name: str) -> dict[str, Any]:
        return {key: value for key, value in study["recipes"][name].items() if key not in ("learning_rate", "search")}

    own = [name for name in study["recipes"] if searches_each_base(study, name)]
    fixed = [name for name in study["recipes"] if name not in own]
    return [(one, other) for other in own for one in fixed if others(one) == others(other)]


def recipe_for(study: Study, name: str, train: str) -> Recipe:
    """A recipe for a task, with the task's learning rate if rates differ by task.

    Errors: StudyError if there is no rate for this task.
    """
    recipe = of_mix(study["recipes"][name], train)
    rates = recipe["learning_rate"]
    if not isinstance(rates, Mapping):
        return recipe
    if train not in rates:
        raise StudyError(
            f"config.yaml: recipes/{name}/learning_rate: {train!r} is missing; the recipe fine-tunes on this task"
        )
    return {**recipe, "learning_rate": rates[train]}


def of_mix(recipe: Recipe, train: str) -> Recipe:
    """A recipe with the shares of the tasks, if it fine-tunes on a mix."""
    mixes = registry.tasks.mixes
    return {**recipe, "mix": dict(mixes[train])} if train in mixes else recipe


def replayed_text(study: Study, recipe: str, family: str) -> ReplayText | None:
    """The text that a recipe mixes into the fine-tuning of a family's bases; None for a recipe without replay.

    Errors: StudyError if neither the recipe nor the family's pre-training names any.
    """
    block = study["recipes"][recipe]
    if "replay" not in block:
        return None
    if "replay_text" in block:
        return block["replay_text"]
    source = study["families"][family]
    pretraining = study["families"][source.get("family", family)].get("pretraining")
    if pretraining is None:
        raise StudyError(
            f"config.yaml: recipes/{recipe}/replay_text: missing; expected a text, since {family!r} is not pre-trained here"
        )
    text: ReplayText = {"corpus": pretraining["corpus"], "split": "train"}
    return {**text, "domains": pretraining["domains"]} if "domains" in pretraining else text


def at_rate(recipe: Recipe, learning_rate: float) -> Recipe:
    """A recipe with one of its listed learning rates, without the settings of the search."""
    search = {"validation": recipe["search"]["validation"]}
    return cast(Recipe, {**recipe, "learning_rate": learning_rate, "search": search})


def cells(study: Study) -> pd.DataFrame:
    """One row for each model and suite that evaluates it: columns CELL_KEYS."""
    all_models = models(study)
    tables = []
    for name, suite in study["suites"].items():
        meant = [train for train in all_models["train"].unique() if suite_tests(suite, train)]
        tables.append(all_models[all_models["train"].isin(meant)].assign(suite=name))
    return pd.concat(tables, ignore_index=True)[CELL_KEYS] if tables else pd.DataFrame(columns=CELL_KEYS)


def parts(study: Study) -> pd.DataFrame:
    """One row for each prediction job: a cell in one or several parts, columns PART_KEYS."""
    all_cells = cells(study)
    rows = [
        (name, train, part)
        for name, suite in study["suites"].items()
        for train in all_cells["train"].unique()
        for part in part_names(suite, train)
    ]
    return all_cells.merge(pd.DataFrame(rows, columns=["suite", "train", "tests"]), how="left", on=["suite", "train"])


def part_names(suite: Suite, train: str) -> list[str]:
    """The parts of a cell: WHOLE, or one for each test for an untouched base on a suite that lists tests for each task.

    Several fine-tuning tasks share the tests of such a base. Each test is predicted once, and a new task adds only its own
    tests. Suites with a plain list of tests have one part.
    """
    return suite_tests(suite, train) if train == "none" and isinstance(suite["tests"], Mapping) else [WHOLE]


def part_tests(suite: Suite, train: str, part: str) -> list[str]:
    """The tests of one part of a cell."""
    return suite_tests(suite, train) if part == WHOLE else [part]


def slice_of(study: Study, train: str, suite: str) -> pd.DataFrame:
    """The parts of a fine-tuning task and its untouched bases on a suite: columns PART_KEYS.

    Errors: StudyError for a task or suite that the study lacks.
    """
    lines = [
        *configs.unknown("slice/suite", [suite], study["suites"]),
        *configs.unknown("slice/train", [train], ["none", *trained_on(study)]),
    ]
    if lines:
        raise MistakesError(lines)
    table = parts(study)
    shown = [WHOLE, *suite_tests(study["suites"][suite], train)]
    meant = (table["train"] == train) | ((table["train"] == "none") & table["tests"].isin(shown))
    return table[meant & (table["suite"] == suite)]


def gpus(study: Study, keys: Mapping[str, str]) -> int:
    """GPUs of a job on a machine with GPUs: as its suite says, else its recipe, else one."""
    if "suite" in keys:
        return study["suites"][keys["suite"]]["gpus"]
    return study["recipes"][keys["recipe"]]["gpus"] if "recipe" in keys else 1


def suite_tests(suite: Suite, train: str) -> list[str]:
    """The tests of a suite for a model fine-tuned on a task; all tests for the untouched base (`none`).

    If tests are listed for each training task and a mix has no list of its own, it has those of its tasks.
    """
    if not isinstance(suite["tests"], Mapping):
        return suite["tests"]
    if train == "none":
        return list(dict.fromkeys(test for tests in suite["tests"].values() for test in tests))
    own = [train] if train in suite["tests"] else task.components(train)
    return list(dict.fromkeys(test for name in own for test in suite["tests"].get(name, [])))


def tests(study: Study) -> pd.DataFrame:
    """One row for each test of each suite: columns suite and TEST_KEYS."""
    rows = [
        (name, *row)
        for name, suite in study["suites"].items()
        for test in suite_tests(suite, "none")
        for row in itertools.product([test], suite["formats"], shots(test, suite["shots"]))
    ]
    return pd.DataFrame(rows, columns=["suite", *TEST_KEYS])


def tasks(study: Study) -> list[str]:
    """All tasks of the study, for fine-tuning, tests or indicators, sorted."""
    tested = {test for suite in study["suites"].values() for test in suite_tests(suite, "none")}
    measured = {name for block in study["indicators"].values() for name in indicators.tasks(block)}
    here = {name for train in tuned_on_here(study) for name in task.components(train)}
    elsewhere = {name for name in trained_on(study) if task.known(name)}  # of others nothing is read
    return sorted(here | elsewhere | tested | measured)


def path(keys: Mapping[str, Any], names: Sequence[str]) -> str:
    """Hive path of a row over some keys: `family=olmo/step=1000/…`."""
    return "/".join(f"{name}={keys[name]}" for name in names)


def pattern(names: Sequence[str]) -> str:
    """Hive path with a wildcard for each key: `family={family}/step={step}/…`."""
    return "/".join(f"{name}={{{name}}}" for name in names)
