"""Checks of a study before its first job: its config, and the local files that the config names.

All mistakes are reported at once, one line each. The schema checks single values; checks that need
torch, the network or the rows of a task are made by the jobs before they compute.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from workflow import registry, task, tasks
from workflow.audit import checks as check_modules
from workflow.data import corpora, lm_eval_tasks, prompts
from workflow.data.demonstrations import FILE
from workflow.errors import MistakesError, StudyError, told
from workflow.evaluation import further as further_metrics
from workflow.forecasting import own_cohort, settings
from workflow.models import chat, checkpoints
from workflow.released import readers, runs
from workflow.report import figures as figure_modules
from workflow.report import summaries as summary_modules
from workflow.settings import Family, Import, LmEval, Recipe, Search, Study, Suite, Target
from workflow.storage import tables
from workflow.storage.files import check_readable, json_object
from workflow.study import adopted, families, grid, indicators, mixes, selection
from workflow.study import config as configs
from workflow.study.config import unknown
from workflow.training import objectives

WIDTHS = ("hidden_size", "n_embd", "d_model")  # keys of a checkpoint's config for the width of its layers


def read(config: Mapping[str, Any]) -> Study:
    """The study of a config: defaults filled in, all names checked.

    Errors: MistakesError with a line for each mistake, which names the key, what was found and what is allowed.
    """
    # First the config as written, so that tables of families are read from a valid config; then with the families of their rows.
    written, lines, places = _valid({key: block for key, block in config.items() if key != registry.HANDED_OVER})
    try:
        expanded = families.expanded(written) if written else None
    except (StudyError, OSError) as error:
        expanded = None
        lines += [line for line in _lines(error) if not line.startswith(_blocks(places))]
    changed = expanded is not None and expanded != written
    valid, more, others = _valid(expanded) if expanded and changed else (expanded, [], [])
    lines, places = [*lines, *more], [*places, *others]
    if valid:
        defaults: dict[str, Any] = {
            "families": {},
            "suites": {},
            "imports": {},
            "cohorts": {},
            "passages": None,
            "selection": None,
            "lm_eval": None,
        }
        study, unread = _with_lm_eval(cast(Study, defaults | valid))
        study, unnamed = mixes.expanded(study)
        lines += [*unread, *unnamed]
        registry.declare(study)
        lines += [line for line in _found(study) if not line.startswith(_blocks(places))]
    if lines:
        raise MistakesError(list(dict.fromkeys(lines)))
    return study


def _blocks(places: Iterable[configs.Place]) -> tuple[str, ...]:
    """How the lines on the blocks of some places begin."""
    return tuple(f"config.yaml: {'/'.join(map(str, key_path[:2]))}" for key_path in places)


def _with_lm_eval(study: Study) -> tuple[Study, list[str]]:
    """The study with the tasks of its block `lm_eval` among its tasks, and tests that name a group as the tasks of the group.

    Also a line for each mistake.
    """
    block: LmEval | None = study["lm_eval"]
    if block is None:
        return study, []
    try:
        blocks, groups, lines = lm_eval_tasks.blocks(block, study["data_root"])
    except StudyError as error:
        return study, _lines(error)
    other_tasks = {**study["tasks"], **registry.study_modules(tasks)}
    lines += [
        f"config.yaml: lm_eval/tasks: the study has a task {name!r} of its own; set lm_eval/prefix, such as harness_"
        for name in blocks
        if name in other_tasks
    ]
    suites = {name: {**suite, "tests": _ungrouped(suite["tests"], groups)} for name, suite in study["suites"].items()}
    return cast(Study, {**study, "tasks": {**blocks, **study["tasks"]}, "suites": suites}), lines


def _ungrouped(tests: Any, groups: Mapping[str, list[str]]) -> Any:
    """The tests of a suite, a list or a list for each training task, with groups as their tasks."""
    if isinstance(tests, Mapping):
        return {train: _ungrouped(listed, groups) for train, listed in tests.items()}
    return list(dict.fromkeys(task for name in tests for task in groups.get(name, [name])))


def _valid(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str], list[configs.Place]]:
    """The valid part of a config (None if there is none), a line for each mistake, and the key paths of the mistakes.

    If a whole block is wrong, nothing counts as valid: other blocks would seem to name something unknown.
    """
    mistakes_found = configs.mistakes(config)
    places = [key_path for key_path, _ in mistakes_found]
    inside = all(len(key_path) > 2 for key_path in places)
    return configs.without(config, places) if inside else None, [line for _, line in mistakes_found], places


def _found(study: Study) -> Iterator[str]:
    """A line for each mistake in a study whose config fits the schema."""
    for check in CHECKS:
        try:
            yield from check(study)
        except (StudyError, OSError) as error:
            yield from _lines(error)


def _refusals(check: Callable[..., object], *arguments: Any) -> Iterator[str]:
    """The lines of the error that a check raises, if any."""
    try:
        check(*arguments)
    except (StudyError, OSError) as error:
        yield from _lines(error)


def _lines(error: StudyError | OSError) -> list[str]:
    """An error's lines."""
    return (told(error) or str(error)).splitlines()


def _not_allowed(key_path: str, cases: Iterable[tuple[str, Any, bool, str]]) -> Iterator[str]:
    """A line for each case (key, value, whether it fits, what is allowed) that does not fit."""
    for key, value, fits, allowed in cases:
        if not fits:
            yield f"config.yaml: {key_path}/{key}: {value} is not allowed; allowed: {allowed}"


# --- families ------------------------------------------------------------------------------------------------------------


def _families(study: Study) -> Iterator[str]:
    """Steps exist, sizes fit each other, checkpoints can be loaded, text to train on exists."""
    for name, family in study["families"].items():
        yield from _refusals(checkpoints.steps, name, family)
        if family["source"] == "trained":
            key_path, block = f"families/{name}/pretraining", family["pretraining"]
            yield from _pretraining(key_path, block)
            yield from _start(name, study["families"])
            yield from _corpus(study, key_path, block)
            named = sorted({*block.get("domains", []), *block.get("mix", {})}) or None
            yield from _text(study, block, named, "train")
        for step in _steps(name, family) if family["source"] == "folder" else []:
            yield from _refusals(_check_checkpoint, name, family, step)


def _check_checkpoint(name: str, family: Family, step: int) -> None:
    """StudyError or OSError unless the checkpoint of a local folder can be read and loaded safely and whole."""
    check_readable(checkpoints.files(name, family, step))
    if folder := checkpoints.folder(name, family, step):
        checkpoints.check(folder)


def _steps(name: str, family: Family) -> list[int]:
    """The steps of a family; empty if they are invalid, which `_families` reports."""
    try:
        return checkpoints.steps(name, family)
    except (StudyError, OSError):
        return []


def _pretraining(key_path: str, block: Mapping[str, Any]) -> Iterator[str]:
    """Sizes, shares and steps of a training that fit each other."""
    groups = objectives.OBJECTIVES[block["objective"]]
    weights, band = block.get("weights", {}), block.get("length", [0, 1])
    heads, hidden, context = block["heads"], block["hidden"], block["context"]
    cases = (
        ("weights", weights, not weights or set(weights) == set(groups), f"one for each of {', '.join(groups)}"),
        ("weights", weights, not weights or sum(weights.values()) > 0, "at least one above 0"),
        ("mix", block.get("mix"), sum(block.get("mix", {"": 1}).values()) > 0, "at least one above 0"),
        ("length", band, band[0] < band[1], "a lower quantile, then a higher one"),
        ("heads", heads, hidden % heads == 0, f"divisors of hidden ({hidden})"),
        ("sequence", block["sequence"], block["sequence"] <= context, f"context ({context}) or less"),
        ("save", max(block["save"]), max(block["save"]) <= block["steps"], f"steps ({block['steps']}) or less"),
    )
    return _not_allowed(key_path, cases)


def _start(name: str, all_families: Mapping[str, Any]) -> Iterator[str]:
    """A family that continues from another names one of its steps, without cycles; a folder to continue from can be loaded."""
    seen, key_path = [name], f"families/{name}/pretraining/continue_from"
    start = all_families[name]["pretraining"].get("continue_from", {})
    if "folder" in start:
        yield from _refusals(checkpoints.check, Path(start["folder"]))
    if "family" in start:
        yield from unknown(f"{key_path}/family", [start["family"]], all_families)
    if start.get("family") in all_families:
        yield from unknown(f"{key_path}/step", [start["step"]], _steps(start["family"], all_families[start["family"]]))
    while start.get("family") in all_families:
        if start["family"] in seen:
            chain = " -> ".join([*seen, start["family"]])
            yield f"config.yaml: {key_path}: {chain} is a cycle; allowed: a family or folder that does not lead back here"
            return
        seen.append(start["family"])
        start = all_families[start["family"]].get("pretraining", {}).get("continue_from", {})


def _corpus(study: Study, key_path: str, block: Mapping[str, Any]) -> Iterator[str]:
    """A corpus of the hub is one of the study's, with the split that is read."""
    name = block["corpus"].removeprefix(corpora.HUB)
    if name == block["corpus"]:
        return
    yield from unknown(f"{key_path}/corpus", [name], study["corpora"])
    if name in study["corpora"]:
        yield from unknown(f"{key_path}/split", [block.get("split", "train")], study["corpora"][name]["splits"])


def _text(
    study: Study, block: Mapping[str, Any], domains: Sequence[str] | None, split: str, *key_path: str
) -> Iterator[str]:
    """Text that no job makes is there, can be read, and has the domains."""

    def check() -> None:
        root = corpora.folder(block, study["data_root"], *key_path)
        check_readable(corpora.files(root, domains, split))

    if not corpora.made(block["corpus"]):
        yield from _refusals(check)


# --- tasks that the study adds --------------------------------------------------------------------------------------------


def _tasks(study: Study) -> Iterator[str]:
    """Tasks that the config declares, and those of the study's modules that it names, are sound; each name is there once."""
    modules = registry.study_modules(tasks)
    for name, path in modules.items():
        if (Path(tasks.__path__[0]) / f"{name}.py").is_file():
            yield f"{os.path.relpath(path)}: Tunecast already has a task {name!r}; rename the file"
    for name in [name for name, block in study["tasks"].items() if "lm_eval" not in block]:
        if name in registry.modules(tasks):
            where = os.path.relpath(modules[name]) if name in modules else "Tunecast"
            yield f"config.yaml: tasks/{name}: {where} already has a task of that name; choose another name"
    for name in {**study["tasks"], **{name: None for name in modules if name in grid.tasks(study)}}:
        yield from _refusals(task.load, name)
        if _known([name]):
            yield from _task_metrics(name)


# Package -> the names that a study's module of it defines.
PLUGINS = {
    further_metrics: ("METRIC",),
    check_modules: ("check",),
    figure_modules: ("NEEDS", "SECTION", "draw"),
    readers: ("SOURCE", "PATTERNS", "LABELS", "runs"),
}


def _plugins(study: Study) -> Iterator[str]:
    """Modules that the study adds define what they have to, under names that Tunecast does not have."""
    for package, needed in PLUGINS.items():
        for name, path in registry.study_modules(package).items():
            file = os.path.relpath(path)
            if name.startswith("_"):
                continue
            if (Path(package.__path__[0]) / f"{name}.py").is_file():
                yield f"{file}: Tunecast already has a module {name!r}; rename the file"
            else:
                yield from _refusals(_check_defined, path, needed)


def _check_defined(path: Path, needed: Sequence[str]) -> None:
    """StudyError unless a file of Python defines some names."""
    if lacking := [name for name in needed if name not in registry.defined(path)]:
        raise StudyError(f"{os.path.relpath(path)}: found no {', '.join(lacking)}; expected {', '.join(needed)}")


def _task_metrics(name: str) -> Iterator[str]:
    """The metrics that a task of the study names are some of its method."""
    read = task.load(name)
    if read.metrics and not read.lm_eval:  # of which all are known
        from workflow.evaluation import metrics  # slow to import, so only where a task names some

        method = task.KINDS[read.kind].method
        methods = metrics.LABEL if method == "label" else (method,)
        known_metrics = [*metrics.METRICS, *registry.modules(further_metrics)]
        legal = [metric for metric in known_metrics if set(methods) & set(metrics.named(metric).methods)]
        yield from unknown(f"tasks/{name}/metrics", read.metrics, legal)


def _known(names: Iterable[str]) -> list[str]:
    """The names of known, valid tasks among some; mistakes in the others are reported elsewhere."""
    return [name for name in names if task.known(name) and not list(_refusals(task.load, name))]


def _formats(key_path: str, names: Iterable[str], formats: Iterable[str]) -> Iterator[str]:
    """Each of some tasks has a template in each format that it is used in."""
    for name in [name for name in names if task.load(name).kind != "messages"]:
        legal = prompts.formats(task.load(name))
        for format in [format for format in formats if format not in legal]:
            yield (
                f"config.yaml: {key_path}: {name!r} has no template in format {format!r} that fits its fields; allowed: "
                f"{', '.join(legal)}"
            )


# --- models --------------------------------------------------------------------------------------------------------------


def _models(study: Study) -> Iterator[str]:
    """Families, steps, recipes and tasks exist; each task has a learning rate; LoRA ranks are below the layer width."""
    for number, block in enumerate(study["models"]):
        key_path = f"models/{number}"
        chosen = [name for name in _chosen(study, block) if name in study["families"]]
        yield from unknown(f"{key_path}/families", block.get("families", []), study["families"])
        yield from unknown(f"{key_path}/recipes", block["recipes"], study["recipes"])
        trains = dict.fromkeys(name for train in block["train"] for name in task.components(train))
        yield from _training_tasks(f"{key_path}/train", list(trains), block["formats"])
        yield from _mix_names(f"{key_path}/train", block["train"])
        families_there = {family: study["families"][family] for family in chosen}
        for recipe in [recipe for recipe in block["recipes"] if recipe in study["recipes"]]:
            recipe_block = study["recipes"][recipe]
            yield from _chat(f"recipes/{recipe}", recipe_block, block["formats"], f"{key_path}/formats", families_there)
        steps = {name: _steps(name, study["families"][name]) for name in chosen}
        if steps and all(steps.values()):
            yield from unknown(f"{key_path}/steps", block.get("steps", []), itertools.chain(*steps.values()))
        for name in [name for name in block["recipes"] if name in study["recipes"]]:
            for train in block["train"]:
                yield from _refusals(grid.recipe_for, study, name, train)
            for family in chosen:
                yield from _refusals(grid.replayed_text, study, name, family)
            yield from _searched(f"recipes/{name}/search/steps", study["recipes"][name], steps)
            yield from _rank(f"recipes/{name}", study["recipes"][name], study, steps)


def _mix_names(key_path: str, names: Iterable[str]) -> Iterator[str]:
    """A mix has a name that no task has."""
    for name in names:
        if name in registry.tasks.mixes and name in task.names():
            yield f"config.yaml: {key_path}: the mix {name!r} has the name of a task; choose another name"


def _adopted(study: Study) -> Iterator[str]:
    """Models that were tuned elsewhere have names of their own, keys that are stated, and files that can be loaded safely."""
    for name in study["adopted"]:
        if name in study["recipes"]:
            yield f"config.yaml: adopted/{name}: the study has a recipe of that name; choose another name"
    for model in adopted.models(study):
        yield from _refusals(adopted.check, model, study)


def _chosen(study: Study, block: Mapping[str, Any]) -> Iterable[str]:
    """The families that a block of models is about."""
    return block.get("families", study["families"])


def _searched(key_path: str, recipe: Recipe, steps: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """The steps on which learning rates are tried exist in each fine-tuned family."""
    for steps_of_family in steps.values():
        if steps_of_family:
            yield from unknown(key_path, recipe.get("search", {}).get("steps", []), steps_of_family)


def _rank(key_path: str, recipe: Recipe, study: Study, steps: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Adapters are narrower than the layers, as far as the width is known from a family's files or its config."""
    for name, steps_of_family in steps.items():
        width = _width(name, study["families"][name], steps_of_family) if recipe["method"] == "lora" else None
        if width is not None and recipe["lora_rank"] > width:
            allowed = f"{width} or less, the width of the layers of {name!r}"
            yield f"config.yaml: {key_path}/lora_rank: {recipe['lora_rank']} is not allowed; allowed: {allowed}"


def _width(name: str, family: Family, steps: Sequence[int]) -> int | None:
    """The width of a family's layers; None if it is known only after fetching."""
    if family["source"] == "trained":
        return None if "continue_from" in family["pretraining"] else family["pretraining"]["hidden"]
    if family["source"] == "hub" or not steps:
        return None
    try:
        folder = checkpoints.folder(name, family, steps[-1])
        known = json_object(folder / "config.json") if folder else {}
    except (StudyError, OSError):
        return None
    return next((known[key] for key in WIDTHS if isinstance(known.get(key), int)), None)


def _recipes(study: Study) -> Iterator[str]:
    """A recipe sets `fraction` or `examples`, and has `search` if and only if it lists learning rates."""
    for name, recipe in study["recipes"].items():
        rates = recipe["learning_rate"]
        listed, search = isinstance(rates, list), recipe.get("search")
        several = listed and len(set(rates)) == len(rates) > 1
        both = {"fraction", "examples"} <= set(recipe)
        cases = (
            ("learning_rate", rates, several or not listed, "a number or at least two, each once"),
            ("learning_rate", rates, listed or not search, "a list of rates, since `search` is set"),
            ("search", search, not several or bool(search), "a block of settings, since learning_rate is a list"),
            ("fraction", recipe.get("fraction"), not both, "either `fraction` or `examples`"),
            (
                "replay_text",
                recipe.get("replay_text"),
                "replay" in recipe or "replay_text" not in recipe,
                "only with replay",
            ),
            ("search/steps", search and search.get("steps"), not _own_steps(search), "none, since `per` is base"),
        )
        yield from _not_allowed(f"recipes/{name}", cases)
        if text := recipe.get("replay_text"):
            yield from _corpus(study, f"recipes/{name}/replay_text", text)
            yield from _text(study, text, text.get("domains"), text["split"], f"recipes/{name}/replay_text/corpus")


def _own_steps(search: Search | None) -> bool:
    """Whether a search for each base names steps."""
    return search is not None and search.get("per") == "base" and "steps" in search


def _training_tasks(key_path: str, names: Sequence[str], formats: Sequence[str]) -> Iterator[str]:
    """Each task is known and has a training split; conversations have one format."""
    yield from unknown(key_path, names, task.names())
    yield from _formats(key_path, _known(names), formats)
    for name in _known(names):
        if not task.load(name).train:
            legal = ", ".join(other for other in _known(task.names()) if task.load(other).train)
            yield f"config.yaml: {key_path}: {name!r} has no training split; allowed: {legal}"
        if task.load(name).kind == "messages" and not set(formats) <= {"default", chat.FORMAT}:
            listed = ", ".join(formats)
            yield (
                f"config.yaml: {key_path}: {name!r} holds conversations, which have no templates; {listed} are not allowed; "
                "allowed: default or chat, in a separate block of `models`"
            )


# --- suites, indicators, cohorts -------------------------------------------------------------------------------------------


def _suites(study: Study) -> Iterator[str]:
    """Suites test tasks that have a test split; tests for each task are for tasks that are tuned on."""
    for name, suite in study["suites"].items():
        key_path = f"suites/{name}/tests"
        yield from _tests(key_path, grid.suite_tests(suite, "none"), suite["formats"])
        yield from _as_lm_eval(f"suites/{name}", suite)
        yield from _chat(f"suites/{name}", suite, suite["formats"], f"suites/{name}/formats", study["families"])
        if suite["metrics"]:
            yield from _further_metrics(f"suites/{name}/metrics", suite)
        if isinstance(suite["tests"], Mapping):
            parts = [name for train in study["mixes"] for name in task.components(train)]
            yield from unknown(key_path, suite["tests"], [*_trained_on(study), *parts])


def _chat(
    key_path: str, block: Mapping[str, Any], formats: Sequence[str], where: str, all_families: Mapping[str, Any]
) -> Iterator[str]:
    """Only format `chat` has a system message; it needs checkpoints with a chat template, and not the published protocol.

    key_path: of the block, a suite or recipe; where: of the formats.
    """
    if "system" in block and chat.FORMAT not in formats:
        yield f"config.yaml: {key_path}/system: is not used by {where} ({', '.join(formats)}); allowed with format chat"
    if chat.FORMAT not in formats:
        return
    if block.get("protocol") == "published":
        yield f"config.yaml: {key_path}/protocol: 'published' is not allowed with format chat; allowed: sound"
    for name in [name for name, family in all_families.items() if _without_template(name, family)]:
        yield f"config.yaml: {where}: 'chat' needs a chat template, which the checkpoints of {name!r} do not have"


def _without_template(name: str, family: Family) -> bool:
    """Whether a family's checkpoints lack a chat template, as far as that is known before they are fetched."""
    if family["source"] == "trained":
        return "continue_from" not in family["pretraining"]
    steps = _steps(name, family) if family["source"] == "folder" else []
    try:
        folder = checkpoints.folder(name, family, steps[-1]) if steps else None
        if folder is None or (folder / "chat_template.jinja").is_file():
            return False
        return not json_object(folder / "tokenizer_config.json").get("chat_template")
    except (StudyError, OSError):
        return False  # others say so


def _further_metrics(key_path: str, suite: Suite) -> Iterator[str]:
    """The metrics that a suite names are optional ones, and those of the study can be loaded."""
    from workflow.evaluation import metrics  # slow to import, so only where a suite names some

    legal = metrics.optional()
    yield from unknown(key_path, suite["metrics"], legal)
    for name in [name for name in suite["metrics"] if name in legal]:
        yield from _refusals(metrics.named, name)


def _as_lm_eval(key_path: str, suite: Suite) -> Iterator[str]:
    """Tasks of lm-evaluation-harness are tested in its protocol, and without few-shot examples where their file says so."""
    for name in _known(grid.suite_tests(suite, "none")):
        harness = task.load(name).lm_eval
        if harness and suite["protocol"] != "sound":
            mistake = f"{suite['protocol']!r} is not allowed for {name!r}, a task of lm_eval"
            yield f"config.yaml: {key_path}/protocol: {mistake}; allowed: sound"
        if not harness and FILE in suite["shots"]:
            mistake = f"'file' is not allowed for {name!r}, which no task file defines"
            yield f"config.yaml: {key_path}/shots: {mistake}; allowed: numbers"
        if harness and harness.shots == 0 and any(number for number in suite["shots"] if number != FILE):
            mistake = f"{suite['shots']} is not allowed for {name!r}, whose file sets num_fewshot: 0"
            yield f"config.yaml: {key_path}/shots: {mistake}; allowed: [0]"


def _trained_on(study: Study) -> Iterable[str]:
    """The tasks of the models; all tasks if one of them is unknown, so that no mistakes follow from that one."""
    return [*_known_or_all(grid.tuned_on_here(study)), *grid.trained_on(study)]


def _tested(suite: Suite, train: str) -> Iterable[str]:
    """The tests of a suite for a task that is tuned on; all tasks if one of them is unknown."""
    return _known_or_all(grid.suite_tests(suite, train))


def _known_or_all(names: Iterable[str]) -> Iterable[str]:
    """Names of tasks and mixes; those of all tasks where one of them is not known."""
    return names if set(names) <= {*task.names(), *registry.tasks.mixes} else task.names()


def _tests(key_path: str, names: Sequence[str], formats: Sequence[str]) -> Iterator[str]:
    """Each task is known, and has a test split and a template in each format."""
    yield from unknown(key_path, names, task.names())
    yield from _formats(key_path, _known(names), formats)
    for name in _known(names):
        if not task.load(name).test:
            legal = ", ".join(other for other in _known(task.names()) if task.load(other).test)
            yield f"config.yaml: {key_path}: {name!r} has no test split; allowed: {legal}"


def _indicators(study: Study) -> Iterator[str]:
    """Indicators read what there is: a suite's tests and metrics, tasks with the split that is needed, text."""
    for name, block in study["indicators"].items():
        key_path = f"indicators/{name}"
        if block["measure"] == indicators.SCORED:
            yield from _scored(key_path, block, study)
        elif block.get("rows") == "test":
            yield from _tests(f"{key_path}/tests", block["tests"], [block.get("format", "default")])
        else:
            key = "train" if "train" in block else "tests"
            yield from _training_tasks(f"{key_path}/{key}", indicators.tasks(block), [block.get("format", "default")])
        if "corpus" in block:
            yield from _corpus(study, key_path, block)
            yield from _text(study, block, block.get("domains"), block["split"], f"{key_path}/corpus")
        if block["measure"] != indicators.SCORED and block.get("format") in (lm_eval_tasks.FORMAT, chat.FORMAT):
            mistake = f"{block['format']!r} is not allowed for {block['measure']!r}"
            yield f"config.yaml: {key_path}/format: {mistake}; allowed: default, io, instruct"


def _scored(key_path: str, block: Mapping[str, Any], study: Study) -> Iterator[str]:
    """An indicator that is a mean of scores is of tests, shots, a format and a metric that its suite has."""
    yield from unknown(f"{key_path}/suite", [block["suite"]], study["suites"])
    if block["suite"] not in study["suites"]:
        return
    suite = study["suites"][block["suite"]]
    there = _tested(suite, "none")
    yield from unknown(f"{key_path}/tests", block.get("tests", []), there)
    yield from unknown(f"{key_path}/shots", [block["shots"]], suite["shots"])
    yield from unknown(f"{key_path}/format", [block["format"]], suite["formats"])
    yield from _metric(
        f"{key_path}/metric", block["metric"], suite, block.get("tests", grid.suite_tests(suite, "none"))
    )


def _metric(key_path: str, metric: str, suite: Suite, tests: Iterable[str]) -> Iterator[str]:
    """Each of some tests of a suite is scored in a metric."""
    from workflow.evaluation import (
        metrics,
    )  # slow to import, so only if a metric is named

    for name in _known(tests):
        if task.load(name).test:
            legal = metrics.of(task.load(name), suite["labels"], tables.PREDICTIONS.names)
            yield from unknown(f"{key_path}, test {name!r}", [metric], legal)


def _forgetting(study: Study) -> Iterator[str]:
    """Indicators that are measured on fine-tuned models are some of the study, of measures that compare with the base."""
    legal = [name for name, block in study["indicators"].items() if block["measure"] in indicators.COMPARED]
    yield from unknown("forgetting", study["forgetting"], legal)
    if study["forgetting"] and not (study["models"] or study["adopted"]):
        yield "config.yaml: forgetting: needs a fine-tuned model; found none in models"


def _cohorts(study: Study) -> Iterator[str]:
    """Cohorts are sound tables, or of families, indicators, recipes, suites and tests of the study."""
    for name, block in study["cohorts"].items():
        yield from _refusals(settings.check, name, block)
        if not settings.assembled(block):
            continue
        key_path = f"cohorts/{name}"
        yield from unknown(f"{key_path}/families", block.get("families", []), study["families"])
        yield from unknown(f"{key_path}/indicators", block["indicators"], study["indicators"])
        if all(family in study["families"] for family in _chosen(study, block)):
            yield from _refusals(own_cohort.bases, study, block)
        for target, target_block in block["targets"].items():
            yield from _target(f"{key_path}/targets/{target}", target_block, study)


def _target(key_path: str, target: Target, study: Study) -> Iterator[str]:
    """A target of a cohort is the mean of scores that the study makes."""
    yield from unknown(f"{key_path}/recipe", [target["recipe"]], [*study["recipes"], *study["adopted"]])
    yield from unknown(f"{key_path}/suite", [target["suite"]], study["suites"])
    tunings = own_cohort.tunings(target)
    yield from unknown(f"{key_path}/tests", dict.fromkeys(train for train, _ in tunings), _trained_on(study))
    if target["suite"] not in study["suites"]:
        return
    suite = study["suites"][target["suite"]]
    for train, test in tunings:
        yield from unknown(f"{key_path}/tests/{train}", [test], _tested(suite, train))
    if "metric" in target:
        yield from _metric(f"{key_path}/metric", target["metric"], suite, dict.fromkeys(test for _, test in tunings))


def _selection(study: Study) -> Iterator[str]:
    """A selection's goal is a score that the study makes, and it has at least two candidates."""
    block = study["selection"]
    if block is None:
        return
    key_path, before = "selection", 0
    names: dict[str, Collection[str]] = {key: study[key] for key in ("families", "recipes", "indicators")}
    for key, known in names.items():
        yield from (lines := list(unknown(f"{key_path}/{key}", cast(Mapping[str, Any], block).get(key, []), known)))
        before += len(lines)
    target = {**block, "recipe": next(iter(study["recipes"]), "none")}
    lines = [*_target(key_path, cast(Target, target), study)] if study["recipes"] else []
    yield from lines
    tests = dict.fromkeys(test for _, test in selection.pairs(block))
    yield from unknown(f"{key_path}/weights", block.get("weights", {}), tests)
    if before or lines:
        return
    for train in selection.trains(block):
        tested = _tested(study["suites"][block["suite"]], train)
        yield from unknown(f"{key_path}/floor/tests", block.get("floor", {"tests": []})["tests"], tested)
    for line in _refusals(own_cohort.bases, study, {"fields": block["fields"]}):
        yield line.replace("cohorts: field", f"{key_path}/fields:")
    count = len(selection.candidates(cast(Study, study)))
    if count < 2:
        wanted = "at least 2, bases and recipes that `models` fine-tunes on the goal's tasks"
        yield f"config.yaml: {key_path}: a choice among {count} is not allowed; allowed: {wanted}"


# --- what is shown, and the files behind all of it -----------------------------------------------------------------------


def _groups(study: Study) -> Iterator[str]:
    """Groups name tasks that are tuned on and tested; what is imported may be about any task."""
    anything = task.names() if study["imports"] else []
    tested = [test for suite in study["suites"].values() for test in _tested(suite, "none")]
    for name, group in study["groups"].items():
        yield from unknown(f"groups/{name}", group, [*_trained_on(study), *anything])
        for train, tests in group.items():
            yield from unknown(f"groups/{name}/{train}", tests, [*tested, *anything])


def _imports(study: Study) -> Iterator[str]:
    """Imports have a known reader, its keys, valid patterns, and files that exist."""
    for name, block in study["imports"].items():
        key_path = f"imports/{name}"
        yield from unknown(f"{key_path}/reader", [block["reader"]], registry.modules(readers))
        if block["reader"] in registry.modules(readers):
            yield from _import_keys(key_path, block)
            yield from _refusals(_check_released, block, study["released_root"])
        for number, pattern in enumerate(block.get("models", ())):
            for key, expression in sorted(pattern.items()):
                if key not in ("model", "revision", "path"):
                    continue
                yield from _refusals(runs.expression, expression, f"{key_path}/models/{number}/{key}")


WHOLE_RELEASE = ("reader", "path", "source", "rename", "tokens_per_step")  # keys that a reader of one release takes


def _import_keys(key_path: str, block: Import) -> Iterator[str]:
    """An import has the keys that its reader takes."""
    if hasattr(runs.reader(block), "FILES"):
        for key in sorted(set(block) - set(WHOLE_RELEASE)):
            yield (
                f"config.yaml: {key_path}/{key}: is not allowed for the release that {block['reader']!r} reads; allowed: "
                f"{', '.join(WHOLE_RELEASE)}"
            )
    if ("columns" in block) != (block["reader"] == "table"):
        wanted = "missing; expected" if block["reader"] == "table" else "not allowed; allowed for reader table alone:"
        yield f"config.yaml: {key_path}/columns: {wanted} what each column of the table holds"


def _check_released(block: Import, root: str | None) -> None:
    """StudyError naming the first file that an import lacks, and its source."""
    input_files = runs.input_files(block, root)
    for path in input_files:
        if not Path(path).is_file():
            raise StudyError(f"{path}: missing; expected the release of {runs.cited(block)}")
    check_readable(input_files)


def _overlays(study: Study) -> Iterator[str]:
    """Overlays pair families of the study with families of imported scores."""
    yield from unknown("overlays", study["overlays"], study["families"])
    for family, imported in study["overlays"].items():
        if imported in study["families"] or not study["imports"]:
            yield (
                f"config.yaml: overlays/{family}: {imported!r} is not allowed; allowed: a family of imported scores, "
                "under the name that `rename` of the import gives it"
            )


NEEDED = {
    "models": "models: found none, expected a fine-tuned model",
    "groups": "groups: found none, expected a group",
    "suites": "suites: found none, expected a suite",
    "formats": "suites: found none with several formats, expected one",
    "own_rates": "recipes: found none with a search per base, expected one that is fine-tuned",
}


def _shown(study: Study) -> Iterator[str]:
    """The study has what its figures and summaries need, as far as the config shows; imports may hold anything."""
    searched = {name for block in study["models"] for name in block["recipes"]} & set(study["recipes"])
    formats = [suite["formats"] for suite in study["suites"].values() if len(suite["formats"]) > 1]
    there = {
        "models": study["models"] or study["adopted"] or study["imports"],
        "groups": study["groups"],
        "suites": study["suites"],
        "formats": formats or study["imports"],
        "own_rates": [name for name in searched if grid.searches_each_base(study, name)],
    }
    asked = (("figures", study["figures"], figure_modules), ("summaries", study["summaries"], summary_modules))
    for key, names, package in asked:
        legal = registry.modules(package)
        yield from unknown(key, names, legal)
        for name in [name for name in names if name in legal]:
            for need in registry.constant(package, name, "NEEDS"):
                if not there[need]:
                    yield f"config.yaml: {NEEDED[need]}, which {name!r} of {key} needs"


def _rows(study: Study) -> Iterator[str]:
    """The local rows of each task, and passages for those whose contexts are found there, can be read."""
    for name in _known(grid.tasks(study)):
        yield from _refusals(grid.passage_files, study, name)
        if not task.generated(name):
            yield from _refusals(_check_rows, name, study["data_root"])


def _check_rows(name: str, root: str | None) -> None:
    """StudyError or OSError unless the files of a task's rows can be read."""
    task.check_files(name, root)
    check_readable(task.row_files(name, root))


CHECKS: tuple[Callable[[Study], Iterator[str]], ...] = (
    _families,
    _tasks,
    _plugins,
    _models,
    _adopted,
    _recipes,
    _suites,
    _indicators,
    _groups,
    _imports,
    _overlays,
    _shown,
    _forgetting,
    _cohorts,
    _selection,
    _rows,
)
