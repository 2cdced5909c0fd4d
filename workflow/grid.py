"""From a study's config to its tables of bases, models and cells. No torch, no network: it runs at each start."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from workflow import config as configs
from workflow import corpora, families, imports, indicators, objectives, released, sources, task
from workflow import figures as figure_modules
from workflow import summaries as summary_modules
from workflow.errors import StudyError
from workflow.files import check_readable
from workflow.forecasting import assembly, settings

BASE_KEYS = ["family", "step"]
MODEL_KEYS = [*BASE_KEYS, "train", "format", "recipe", "seed"]
CELL_KEYS = [*MODEL_KEYS, "suite"]
PART_KEYS = [*CELL_KEYS, "tests"]
TEST_KEYS = ["test", "test_format", "shots"]
CHOICE_KEYS = ["family", "train", "format", "recipe"]
TRIAL_KEYS = [*BASE_KEYS, "train", "format", "recipe", "rate"]
UNTOUCHED = {"train": "none", "format": "none", "recipe": "none", "seed": 0}
WHOLE = "all"  # the part of a cell that is all of it


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The study behind a config: defaults filled in, every name in it known.

    Errors: StudyError naming key and legal values.
    """
    # Once as it is written, so that a table is read of a sound config, and once with the families of its rows.
    valid = configs.validated(families.expanded(configs.validated(config)))
    study = {"families": {}, "suites": {}, "imports": {}, "cohorts": {}, "passages": None} | valid
    for name, family in study["families"].items():
        if family["source"] == "trained":
            _check_pretraining(f"families/{name}/pretraining", family["pretraining"])
            _check_start(name, study["families"])
    for number, block in enumerate(study["models"]):
        place = f"models/{number}"
        _known(f"{place}/families", block.get("families", []), study["families"])
        _known(f"{place}/recipes", block["recipes"], study["recipes"])
        _check_training_tasks(f"{place}/train", block["train"], block["formats"])
        for name, train in itertools.product(block["recipes"], block["train"]):
            recipe_for(study, name, train)
    for name, recipe in study["recipes"].items():
        _check_recipe(f"recipes/{name}", recipe)
    for name, suite in study["suites"].items():
        _check_tests(f"suites/{name}/tests", suite_tests(suite, "none"))
        if isinstance(suite["tests"], Mapping):
            _known(f"suites/{name}/tests", suite["tests"], _trained_on(study))
    for name, block in study["indicators"].items():
        _check_indicator(f"indicators/{name}", block, study)
    _check_groups(study)
    for name, block in study["imports"].items():
        _known(f"imports/{name}/reader", [block["reader"]], modules(imports))
        _check_import(f"imports/{name}", block)
    _check_overlays(study)
    _check_shown(study)
    _check_inputs(study)
    return study


def _check_groups(study: Mapping[str, Any]) -> None:
    """StudyError unless groups name tasks that are tuned on and tested; what is imported may be about any task."""
    anything = task.names() if study["imports"] else []
    tested = [test for suite in study["suites"].values() for test in suite_tests(suite, "none")]
    for name, group in study["groups"].items():
        _known(f"groups/{name}", group, [*_trained_on(study), *anything])
        for train, tests in group.items():
            _known(f"groups/{name}/{train}", tests, [*tested, *anything])


WHOLE_RELEASE = ("reader", "path", "source", "rename", "tokens_per_step")  # keys that a reader of one release takes


def _check_import(place: str, block: Mapping[str, Any]) -> None:
    """StudyError unless an import has the keys that its reader takes, and patterns that can be read."""
    if hasattr(reader(block), "FILES"):
        for key in set(block) - set(WHOLE_RELEASE):
            raise StudyError(
                f"config.yaml: {place}/{key}: is not allowed for the release that {block['reader']!r} reads; allowed: "
                f"{', '.join(WHOLE_RELEASE)}"
            )
    if ("columns" in block) != (block["reader"] == "table"):
        wanted = "missing; expected" if block["reader"] == "table" else "not allowed; allowed for reader table alone:"
        raise StudyError(f"config.yaml: {place}/columns: {wanted} what each column of the table holds")
    for number, pattern in enumerate(block.get("models", ())):
        for key in ("model", "revision", "path"):
            if key in pattern:
                released.expression(pattern[key], f"{place}/models/{number}/{key}")


def _check_overlays(study: Mapping[str, Any]) -> None:
    """StudyError unless overlays lay families that are imported over families of the study."""
    _known("overlays", study["overlays"], study["families"])
    for own, imported in study["overlays"].items():
        if imported in study["families"] or not study["imports"]:
            raise StudyError(
                f"config.yaml: overlays/{own}: {imported!r} is not allowed; allowed: a family of imported scores, "
                "under the name that `rename` of the import gives it"
            )


NEEDED = {
    "models": "models: found none, expected a tuned model",
    "groups": "groups: found none, expected a group",
    "suites": "suites: found none, expected a suite",
    "formats": "suites: found none with several formats, expected one",
}


def _check_shown(study: Mapping[str, Any]) -> None:
    """StudyError unless the study has what its figures and summaries show, as far as a config tells; imports may hold
    anything."""
    formats = [suite["formats"] for suite in study["suites"].values() if len(suite["formats"]) > 1]
    there = {
        "models": study["models"] or study["imports"],
        "groups": study["groups"],
        "suites": study["suites"],
        "formats": formats or study["imports"],
    }
    for key, package in (("figures", figure_modules), ("summaries", summary_modules)):
        _known(key, study[key], modules(package))
        for name in study[key]:
            for need in module(package, name).NEEDS:
                if not there[need]:
                    raise StudyError(f"config.yaml: {NEEDED[need]}, which {name!r} of {key} shows")


def _known(place: str, found: Iterable[str], allowed: Iterable[str]) -> None:
    """StudyError unless all found names are allowed ones."""
    legal = sorted(set(allowed))
    for name in found:
        if name not in legal:
            listed = ", ".join(map(str, legal)) or "none"
            raise StudyError(f"config.yaml: {place}: {name!r} is not known; allowed: {listed}")


def _check_pretraining(place: str, block: Mapping[str, Any]) -> None:
    """StudyError unless sizes and steps of a training from scratch fit each other."""
    groups = objectives.OBJECTIVES[block["objective"]]
    weights, band = block.get("weights", {}), block.get("length", [0, 1])
    for key, found, fits, allowed in (
        ("weights", weights, not weights or set(weights) == set(groups), f"one for each of {', '.join(groups)}"),
        ("weights", weights, not weights or sum(weights.values()) > 0, "some above 0"),
        ("mix", block.get("mix"), sum(block.get("mix", {"": 1}).values()) > 0, "some above 0"),
        ("length", band, band[0] < band[1], "a lower quantile, then a higher one"),
        ("heads", block["heads"], block["hidden"] % block["heads"] == 0, f"divisors of hidden ({block['hidden']})"),
        ("sequence", block["sequence"], block["sequence"] <= block["context"], f"context ({block['context']}) or less"),
        ("save", max(block["save"]), max(block["save"]) <= block["steps"], f"steps ({block['steps']}) or less"),
    ):
        if not fits:
            raise StudyError(f"config.yaml: {place}/{key}: {found} is not allowed; allowed: {allowed}")


def _check_start(name: str, all_families: Mapping[str, Any]) -> None:
    """StudyError unless a family that goes on from another does so from one of its steps, and none from itself."""
    seen, place = [name], f"families/{name}/pretraining/continue_from"
    start = all_families[name]["pretraining"].get("continue_from", {})
    if "family" in start:
        _known(f"{place}/family", [start["family"]], all_families)
        _known(f"{place}/step", [start["step"]], sources.steps(start["family"], all_families[start["family"]]))
    while "family" in start:
        if start["family"] in seen:
            raise StudyError(f"config.yaml: {place}: {' -> '.join([*seen, start['family']])} has no beginning")
        seen.append(start["family"])
        start = all_families[start["family"]].get("pretraining", {}).get("continue_from", {})


def _check_inputs(study: Mapping[str, Any]) -> None:
    """StudyError unless every local file that the study reads is there, the generated ones left out."""
    for block in study["imports"].values():
        _check_released(block, study["released_root"])
    for name, block in study["cohorts"].items():
        settings.check(name, block)
        if settings.assembled(block):
            _check_cohort(study, f"cohorts/{name}", block)
    root = study["data_root"]
    for name, family in study["families"].items():
        if family["source"] == "folder":
            for step in sources.steps(name, family):
                check_readable(sources.files(name, family, step))
        text = family.get("pretraining")
        if text:
            _check_corpus(study, f"families/{name}/pretraining", text)
        if text and not corpora.made(text["corpus"]):
            named = sorted({*text.get("domains", []), *text.get("mix", {})}) or None
            check_readable(corpora.files(corpora.folder(text, root), named))
    for name, block in study["indicators"].items():
        if "corpus" in block:
            _check_corpus(study, f"indicators/{name}", block)
        if "corpus" in block and not corpora.made(block["corpus"]):
            text = corpora.folder(block, root, f"indicators/{name}/corpus")
            check_readable(corpora.files(text, block.get("domains"), block["split"]))
    for name in tasks(study):
        passage_files(study, name)
        if task.load(name).hub:
            task.check_files(name, root)
            check_readable(task.row_files(name, root))


def _check_corpus(study: Mapping[str, Any], place: str, block: Mapping[str, Any]) -> None:
    """StudyError unless a corpus of the hub is one of the study's, with the split that is read."""
    if block["corpus"].startswith(corpora.HUB):
        name = block["corpus"].removeprefix(corpora.HUB)
        _known(f"{place}/corpus", [name], study["corpora"])
        _known(f"{place}/split", [block.get("split", "train")], study["corpora"][name]["splits"])


def collected(study: Mapping[str, Any]) -> list[str]:
    """The corpora of the hub that a study reads."""
    trained = [family["pretraining"] for family in study["families"].values() if "pretraining" in family]
    names = {block["corpus"] for block in (*trained, *study["indicators"].values()) if "corpus" in block}
    return sorted(name.removeprefix(corpora.HUB) for name in names if name.startswith(corpora.HUB))


def _check_cohort(study: Mapping[str, Any], place: str, block: Mapping[str, Any]) -> None:
    """StudyError unless a cohort of the study's own bases is of families, recipes, suites and tests of the study."""
    _known(f"{place}/families", block.get("families", []), study["families"])
    _known(f"{place}/indicators", block["indicators"], study["indicators"])
    assembly.bases(study, block)
    for name, how in block["targets"].items():
        own = f"{place}/targets/{name}"
        _known(f"{own}/recipe", [how["recipe"]], study["recipes"])
        _known(f"{own}/suite", [how["suite"]], study["suites"])
        for train, test in assembly.tunings(how):
            _known(f"{own}/tests", [train], _trained_on(study))
            _known(f"{own}/tests/{train}", [test], suite_tests(study["suites"][how["suite"]], train))


def passage_files(study: Mapping[str, Any], name: str) -> list[str]:
    """The files with the passages that a task's contexts are found in; none for a task without contexts.

    Errors: StudyError where a task needs passages and the study names none.
    """
    if not task.load(name).retrieved:
        return []
    block = study["passages"]
    if block is None:
        raise StudyError(
            f"config.yaml: passages: missing; expected the text that the contexts of {name!r} are found in"
        )
    if corpora.made(block["corpus"]):
        raise StudyError(
            f"config.yaml: passages/corpus: {block['corpus']!r} is not allowed; allowed: a folder with text domains"
        )
    folder = corpora.folder(block, study["data_root"], "passages/corpus")
    return [str(path) for path in corpora.files(folder, block.get("domains"), block["split"])]


def released_files(block: Mapping[str, Any], root: str | None = None) -> list[str]:
    """The files that an import reads. root: the study's `released_root`."""
    return [str(path) for path in released.files(block, reader(block), root)]


def reader(block: Mapping[str, Any]) -> ModuleType:
    """The module that reads an import's files."""
    return module(imports, block["reader"])


def renamed(
    place: str, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str], families: Sequence[str]
) -> list[dict[str, Any]]:
    """Imported rows with their families renamed; place: of the renaming in the config; families: the study's own.

    Errors: StudyError for a name that no row has, for two families that get one name, and for a family of the study, whose
    scores would be taken for its own.
    """
    found = list(rows)
    there = sorted({row["family"] for row in found})
    for old in set(names) - set(there):
        raise StudyError(f"{place}: found no family {old!r}; allowed: {', '.join(there)}")
    taken: dict[str, list[str]] = {}
    for old in there:
        taken.setdefault(names.get(old, old), []).append(old)
    for name, olds in taken.items():
        if len(olds) > 1:
            listed = ", ".join(map(repr, olds))
            raise StudyError(f"{place}: families {listed} are both {name!r} here; expected one name for each")
        if name in families:
            raise StudyError(
                f"{place}: imported family {name!r} is one of this study's; expected a name of its own for it"
            )
    return with_names(found, names)


def with_names(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows with their families renamed; of a file that was left out nothing is known."""
    return [
        {**row, "family": names.get(row["family"], row["family"])} if "family" in row else dict(row) for row in rows
    ]


def cited(block: Mapping[str, Any]) -> str:
    """What an import is, as the study or its reader says."""
    return block.get("source") or reader(block).SOURCE


def _check_released(block: Mapping[str, Any], root: str | None) -> None:
    """StudyError naming the first file that an import lacks, and where it is to be had."""
    found = released_files(block, root)
    for path in found:
        if not Path(path).is_file():
            raise StudyError(f"{path}: missing; expected the release of {cited(block)}")
    check_readable(found)


def _check_recipe(place: str, recipe: Mapping[str, Any]) -> None:
    """StudyError unless a recipe says once how many examples it takes, and how to choose exactly where rates are listed."""
    rates = recipe["learning_rate"]
    listed = isinstance(rates, list)
    several = listed and len(set(rates)) == len(rates) > 1
    for key, found, fits, allowed in (
        ("learning_rate", rates, several or not listed, "a number or at least two, each once"),
        ("learning_rate", rates, listed or "search" not in recipe, "a list, since `search` is given"),
        ("search", recipe.get("search"), not listed or "search" in recipe, "keys with values, since rates are listed"),
        ("fraction", recipe.get("fraction"), not {"fraction", "examples"} <= set(recipe), "it or `examples`, not both"),
    ):
        if not fits:
            raise StudyError(f"config.yaml: {place}/{key}: {found} is not allowed; allowed: {allowed}")


def _check_tests(place: str, found: Sequence[str]) -> None:
    """StudyError unless each task is known and has a test split."""
    _known(place, found, task.names())
    for name in found:
        if not task.load(name).test:
            legal = ", ".join(other for other in task.names() if task.load(other).test)
            raise StudyError(f"config.yaml: {place}: {name!r} has no test split; allowed: {legal}")


def _check_training_tasks(place: str, found: Sequence[str], formats: Sequence[str]) -> None:
    """StudyError unless each task is known and has a training split; of conversations there is one format alone."""
    _known(place, found, task.names())
    for name in found:
        if not task.load(name).train:
            legal = ", ".join(other for other in task.names() if task.load(other).train)
            raise StudyError(f"config.yaml: {place}: {name!r} has no training split; allowed: {legal}")
        if task.load(name).kind == "messages" and list(formats) != ["default"]:
            listed = ", ".join(formats)
            raise StudyError(
                f"config.yaml: {place}: {name!r} has a form of its own, so formats {listed} are not allowed; "
                "allowed: default alone (in a block of its own)"
            )


def _check_indicator(place: str, block: Mapping[str, Any], study: Mapping[str, Any]) -> None:
    """StudyError unless an indicator reads what there is: a suite's tests, tasks with the split that it needs."""
    if block["measure"] == indicators.SCORED:
        _known(f"{place}/suite", [block["suite"]], study["suites"])
        suite = study["suites"][block["suite"]]
        _known(f"{place}/tests", block.get("tests", []), suite_tests(suite, "none"))
        _known(f"{place}/shots", [block["shots"]], suite["shots"])
        _known(f"{place}/format", [block["format"]], suite["formats"])
    elif block.get("rows") == "test":
        _check_tests(f"{place}/tests", block["tests"])
    else:
        key = "train" if "train" in block else "tests"
        _check_training_tasks(f"{place}/{key}", indicators.tasks(block), [block.get("format", "default")])


def _trained_on(study: Mapping[str, Any]) -> set[str]:
    """All tasks that some model of the study is tuned on."""
    return {name for block in study["models"] for name in block["train"]}


def modules(package: ModuleType) -> list[str]:
    """Names of the modules in a package, sorted: the registry of figures and of analyses."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def module(package: ModuleType, name: str) -> ModuleType:
    """A module of a package by its name."""
    return importlib.import_module(f"{package.__name__}.{name}")


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


def trials(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each trial of each listed learning rate, `rate` its place in the list: columns TRIAL_KEYS.

    A trial runs on the bases that `search/steps` lists, else on the last one that is tuned.
    """
    all_bases, all_models = bases(study), models(study)
    rows = []
    for keys, tuned in all_models.groupby(CHOICE_KEYS, sort=False):
        family, train, format, name = keys
        search = study["recipes"].get(name, {}).get("search")
        if search is None:
            continue
        steps = search.get("steps", [int(tuned["step"].max())])
        _known(f"recipes/{name}/search/steps", steps, all_bases.loc[all_bases["family"] == family, "step"])
        for step, rate in itertools.product(steps, range(len(study["recipes"][name]["learning_rate"]))):
            rows.append((family, step, train, format, name, rate))
    return pd.DataFrame(rows, columns=TRIAL_KEYS)


def recipe_for(study: Mapping[str, Any], name: str, train: str) -> dict[str, Any]:
    """A recipe as it tunes on a task: with the task's own learning rate where it gives one for each.

    Errors: StudyError when it gives none for this task.
    """
    found = study["recipes"][name]
    rates = found["learning_rate"]
    if not isinstance(rates, Mapping):
        return found
    if train not in rates:
        raise StudyError(
            f"config.yaml: recipes/{name}/learning_rate: {train!r} is missing; it is tuned on by this recipe"
        )
    return {**found, "learning_rate": rates[train]}


def at_rate(recipe: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """A recipe that lists learning rates at one of them; on which bases the trials run is left out."""
    return {**recipe, "learning_rate": learning_rate, "search": {"validation": recipe["search"]["validation"]}}


def cells(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model on each suite meant for it: columns CELL_KEYS."""
    all_models = models(study)
    tables = []
    for name, suite in study["suites"].items():
        meant = [train for train in all_models["train"].unique() if suite_tests(suite, train)]
        tables.append(all_models[all_models["train"].isin(meant)].assign(suite=name))
    return pd.concat(tables, ignore_index=True)[CELL_KEYS] if tables else pd.DataFrame(columns=CELL_KEYS)


def parts(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each job that predicts: a cell in one part or several, columns PART_KEYS."""
    all_cells = cells(study)
    rows = [
        (name, train, part)
        for name, suite in study["suites"].items()
        for train in all_cells["train"].unique()
        for part in part_names(suite, train)
    ]
    return all_cells.merge(pd.DataFrame(rows, columns=["suite", "train", "tests"]), how="left", on=["suite", "train"])


def part_names(suite: Mapping[str, Any], train: str) -> list[str]:
    """The parts of a cell: WHOLE, but each test by itself for an untouched base on a suite with tests for each task.

    What a base is tested on there is shared by several tasks tuned on. By itself, a test is predicted once for all of them, a
    slice takes those that it shows, and another task adds its own. A list of tests is shown whole wherever it is shown.
    """
    return suite_tests(suite, train) if train == "none" and isinstance(suite["tests"], Mapping) else [WHOLE]


def part_tests(suite: Mapping[str, Any], train: str, part: str) -> list[str]:
    """The tests of one part of a cell."""
    return suite_tests(suite, train) if part == WHOLE else [part]


def slice_of(study: Mapping[str, Any], train: str, suite: str) -> pd.DataFrame:
    """The parts that show a task tuned on beside its untouched bases on a suite: columns PART_KEYS.

    Errors: StudyError for a task or suite that the study lacks.
    """
    _known("slice/suite", [suite], study["suites"])
    _known("slice/train", [train], ["none", *_trained_on(study)])
    table = parts(study)
    shown = [WHOLE, *suite_tests(study["suites"][suite], train)]
    meant = (table["train"] == train) | ((table["train"] == "none") & table["tests"].isin(shown))
    return table[meant & (table["suite"] == suite)]


def gpus(study: Mapping[str, Any], keys: Mapping[str, str]) -> int:
    """GPUs that a job holds where there are any, by its keys: as its suite says, else its recipe, else one."""
    if "suite" in keys:
        return study["suites"][keys["suite"]]["gpus"]
    return study["recipes"][keys["recipe"]]["gpus"] if "recipe" in keys else 1


def suite_tests(suite: Mapping[str, Any], train: str) -> list[str]:
    """The tests of a suite that a model tuned on a task is put to; all of them for the untouched base (`none`)."""
    if not isinstance(suite["tests"], Mapping):
        return suite["tests"]
    if train == "none":
        return list(dict.fromkeys(test for tests in suite["tests"].values() for test in tests))
    return suite["tests"].get(train, [])


def tests(study: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each test of each suite: columns suite and TEST_KEYS."""
    rows = [
        (name, *row)
        for name, suite in study["suites"].items()
        for row in itertools.product(suite_tests(suite, "none"), suite["formats"], suite["shots"])
    ]
    return pd.DataFrame(rows, columns=["suite", *TEST_KEYS])


def tasks(study: Mapping[str, Any]) -> list[str]:
    """All tasks the study reads, trained on, tested or measured on, sorted."""
    tested = {test for suite in study["suites"].values() for test in suite_tests(suite, "none")}
    measured = {name for block in study["indicators"].values() for name in indicators.tasks(block)}
    return sorted(_trained_on(study) | tested | measured)


def path(keys: Mapping[str, Any], names: Sequence[str]) -> str:
    """Hive path of a row: `family=olmo/step=1000/…` over the named keys."""
    return "/".join(f"{name}={keys[name]}" for name in names)


def pattern(names: Sequence[str]) -> str:
    """Hive path with a wildcard for each key: `family={family}/step={step}/…`."""
    return "/".join(f"{name}={{{name}}}" for name in names)
