"""Results of EleutherAI's lm-evaluation-harness, versions 0.2 to 0.4.

- 0.2 and 0.3: `results` maps a task to `{acc, acc_stderr, acc_norm, …}`; `config` states model, its arguments and the
  number of demonstrations of all tasks. A fork for prompt collections writes a list of results, each with `task_name` and
  `prompt_name`.
- 0.4: `results` maps a task to `{"acc,none", "acc_stderr,none", …}` by metric and filter; `n-shot`, `n-samples`,
  `higher_is_better` and `configs` are by task; `group_subtasks` says which tasks a group is the mean of. A metric whose filter
  is not `none` keeps it in its name (`exact_match,strict-match`).
- 0.4 where samples were logged: beside it `samples_<task>_<time>.jsonl`, one row for each document and filter.

The model is `pretrained` of the arguments (of an adapter `peft`), the revision `revision`; of GPT-NeoX the folder that was
loaded and `step<iteration>`. Tests and metrics keep the harness's names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, shown
from workflow.released.runs import Run, Score
from workflow.settings import Import
from workflow.storage.files import json_lines, json_object

SOURCE = "results of lm-evaluation-harness (results_*.json, or the JSON of versions before 0.4)"
PATTERNS = ("**/*.json", "**/samples_*.jsonl")
LABELS: dict[str, tuple[str, str]] = {}

NO_METRIC = ("alias", "name", "sample_len", "samples", "sample_count", " ", "task_name", "prompt_name", "dataset_path",
             "dataset_name", "subset", "prompt_id", "prompt_jinja", "comment", "fixed_answer_choice_list",
             "prompt_original_task")  # fmt: skip
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?")
OLD_TIME = re.compile(r"(\d{2})-(\d{2})-(\d{4})-(\d{2})-(\d{2})-(\d{2})")
OFF = 1e-6  # what a mean of logged rows may be off from the score in the file


def runs(path: Path, block: Import) -> Iterator[Run]:
    """Yield the run of a results file; nothing for a samples file, which is read with its results.

    Errors: StudyError for a file not written by the harness, or without model or number of few-shot examples.
    """
    if path.suffix == ".jsonl":
        _own_results(path)
        return
    content = json_object(path)
    results = _results(path, content)
    config = content.get("config")
    if not isinstance(config, Mapping):
        raise StudyError(f"{path}: key 'config' is missing or no object; it names the model of the scores")
    model, revision, arguments = _model(path, content, config)
    scores = [
        score for task, task_results in results.items() for score in _scores(path, task, task_results, content, config)
    ]
    if not scores:
        raise StudyError(f"{path}: found no metric in 'results', expected at least one")
    facts = {key: value for key, value in arguments.items() if isinstance(value, str | int | float)}
    facts |= {key: config[key] for key in ("random_seed", "fewshot_seed") if isinstance(config.get(key), int)}
    limit = config.get("limit")
    remarks = [] if limit is None else [f"made with limit={limit}: tests have fewer rows than they could have"]
    rows, scores_with_chance = _samples(path, scores, content)
    yield Run(
        str(path), model, revision, tuple(scores_with_chance), {k: v for k, v in facts.items() if k not in ("revision", "seed")},
        _date(path, content), rows, (*remarks, *_renamed(path, model)),
    )  # fmt: skip


def _results(path: Path, content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return task -> metrics for any version of the file."""
    if "results" not in content:
        listed = ", ".join(sorted(map(str, content))[:6]) or "none"
        raise StudyError(f"{path}: key 'results' is missing (found {listed}); expected {SOURCE}")
    results = content["results"]
    if isinstance(results, list):
        entries = [(entry, _prompted(path, entry)) for entry in results]
        if len({name for _, name in entries}) < len(entries):
            raise StudyError(f"{path}: a task with a prompt is in 'results' twice, expected each once")
        return {name: entry for entry, name in entries}
    if not isinstance(results, Mapping) or not results:
        raise StudyError(
            f"{path}: found {shown(results)} as 'results', expected an object task -> metrics that is not empty"
        )
    for task, task_results in results.items():
        if not isinstance(task_results, Mapping):
            raise StudyError(
                f"{path}: found {shown(task_results)} as results of {task}, expected an object metric -> number"
            )
    return dict(results)


def _prompted(path: Path, entry: Any) -> str:
    """Return the name of a task with a prompt, as in `versions` of such files."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("task_name"), str):
        raise StudyError(f"{path}: found {shown(entry)} in 'results', expected an object with 'task_name'")
    prompt = entry.get("prompt_name")
    return f"{entry['task_name']}+{prompt}" if prompt else entry["task_name"]


def _model(
    path: Path, content: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[str, str | None, Mapping[str, Any]]:
    """Return model, revision and the model's arguments."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = _parsed(path, arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise StudyError(f"{path}: found {shown(arguments)} as config.model_args, expected text or an object")
    if "iteration" in arguments:
        folder = arguments.get("load") or arguments.get("save")
        if not isinstance(folder, str) or not isinstance(arguments["iteration"], int):
            raise StudyError(f"{path}: config.model_args has 'iteration' without the folder 'load', expected both")
        return folder.rstrip("/"), f"step{arguments['iteration']}", arguments
    name = (
        arguments.get("peft")
        or arguments.get("pretrained")
        or arguments.get("model")
        or content.get("model_name")
        or config.get("model")
    )
    if not isinstance(name, str) or not name.strip():
        raise StudyError(f"{path}: names no model in config.model_args, expected 'pretrained'")
    revision = arguments.get("revision") or config.get("model_revision")
    return name, None if revision is None else str(revision), arguments


def _parsed(path: Path, text: str) -> dict[str, str]:
    """Parse arguments from text, `pretrained=…,revision=…`."""
    parts = [part for part in text.split(",") if part.strip()]
    if any("=" not in part for part in parts):
        raise StudyError(f"{path}: found {shown(text)} as config.model_args, expected name=value, one after the other")
    pairs = (part.split("=", 1) for part in parts)
    return {name.strip(): value.strip() for name, value in pairs}


def _scores(
    path: Path, task: str, task_results: Mapping[str, Any], content: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[Score]:
    """Yield the scores of one task."""
    filtered = any("," in key for key in task_results)
    for key, value in task_results.items():
        metric, _, filter = key.partition(",")
        if key in NO_METRIC or metric.endswith("_stderr") or (filtered and not filter):
            continue
        if value is None or isinstance(value, str):
            raise StudyError(f"{path}: found {shown(value)} as {key} of {task}, expected a number")
        error = task_results.get(f"{metric}_stderr,{filter}" if filter else f"{metric}_stderr")
        if isinstance(error, str) and error != "N/A":
            raise StudyError(
                f"{path}: found {shown(error)} as standard error of {key} of {task}, expected a number or 'N/A'"
            )
        stated = _of(content, "higher_is_better", task)
        better = stated.get(metric) if isinstance(stated, Mapping) else None
        yield Score(
            task,
            metric if filter in ("", "none") else key,
            value,
            _shots(path, task, content, config),
            None if isinstance(error, str) else error,
            _count(task, content),
            _chance(task, content),
            None
            if better is None or metric in ("pct_stereotype", "likelihood_diff")
            else "higher"
            if better
            else "lower",
            _group(task, content),
        )


def _of(content: Mapping[str, Any], key: str, task: str) -> Any:
    """Return a task's entry in a part of the file that is organised by task."""
    part = content.get(key)
    return part.get(task) if isinstance(part, Mapping) else None


def _leaves(task: str, content: Mapping[str, Any]) -> list[str]:
    """Return the tasks of a group, through groups of groups; for a task, the task."""
    inner = _of(content, "group_subtasks", task)
    if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
        return [task]
    return [leaf for name in inner if name != task for leaf in _leaves(name, content)]


def _shots(path: Path, task: str, content: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Return the number of few-shot examples of a task; for a group, that of its tasks, if they agree."""
    stated_by_task = {_of(content, "n-shot", leaf) for leaf in (task, *_leaves(task, content))}
    stated_by_task = {number for number in stated_by_task if isinstance(number, int)}
    if len(stated_by_task) == 1:
        return stated_by_task.pop()
    task_config = _of(content, "configs", task)
    stated = task_config.get("num_fewshot") if isinstance(task_config, Mapping) else None
    stated = config.get("num_fewshot") if stated is None else stated
    if isinstance(stated, int) and not isinstance(stated, bool):
        return stated
    if stated_by_task:
        numbers = ", ".join(map(str, sorted(stated_by_task)))
        raise StudyError(f"{path}: the tasks of group {task} have {numbers} few-shot examples, expected one number")
    if "n-shot" in content and stated is None:
        return 0  # the default of 0.4
    raise StudyError(f"{path}: found {shown(stated)} as config.num_fewshot, expected the number of few-shot examples")


def _count(task: str, content: Mapping[str, Any]) -> int | None:
    """Return the number of rows behind a score, for a group those of all its tasks."""
    counts = [_of(content, "n-samples", leaf) for leaf in _leaves(task, content)]
    stated = [count.get("effective") if isinstance(count, Mapping) else None for count in counts]
    numbers = [number for number in stated if isinstance(number, int)]
    return sum(numbers) if len(numbers) == len(stated) and sum(numbers) > 0 else None


def _chance(task: str, content: Mapping[str, Any]) -> float | None:
    """Return the chance level if all rows have the same listed choices; for a group, if its tasks agree."""
    chances = set()
    for leaf in _leaves(task, content):
        task_config = _of(content, "configs", leaf)
        choices = (
            task_config.get("doc_to_choice")
            if isinstance(task_config, Mapping) and task_config.get("output_type") == "multiple_choice"
            else None
        )
        chances.add(1 / len(choices) if isinstance(choices, list) and choices else None)
    return chances.pop() if len(chances) == 1 else None


def _group(task: str, content: Mapping[str, Any]) -> str | None:
    """Return the group of a task; of several, the smallest."""
    groups = content.get("group_subtasks")
    if not isinstance(groups, Mapping):
        return None
    candidates = [
        name for name in groups if name != task and name in content["results"] and task in _leaves(name, content)
    ]
    candidates += [
        name
        for name, inner in groups.items()
        if isinstance(inner, list) and task in inner and name in content["results"]
    ]
    return min(candidates, key=lambda name: (len(_leaves(name, content)), name)) if candidates else None


def _date(path: Path, content: Mapping[str, Any]) -> float:
    """Return the time of a file: as stated in it, else in its name; 0 if in neither."""
    if isinstance(content.get("date"), int | float):
        return float(content["date"])
    if match := OLD_TIME.search(path.name):
        month, day, year, hour, minute, second = map(int, match.groups())
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
        except ValueError:
            return 0.0
    if match := TIME.search(path.name):
        return datetime.strptime(match[0].split(".")[0], "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC).timestamp()
    return 0.0


def _renamed(path: Path, model: str) -> Iterator[str]:
    """Yield a remark if the folder of a 0.4 file (the model's name with / as __) contradicts the file."""
    folder = path.parent.name
    if "__" in folder and folder != re.sub(r'["<>:/|\\?*\[\]]+', "__", model):
        yield f"its folder is {folder}, the file names model {model}"


# Logged rows


def _own_results(path: Path) -> None:
    """Raise StudyError for a samples file without the results file that names its model."""
    time = TIME.search(path.name)
    if not time or not (path.parent / f"results_{time[0]}.json").is_file():
        raise StudyError(
            f"{path}: samples without the results_<time>.json that names their model; expected both in one folder"
        )


def _samples(
    path: Path, scores: Sequence[Score], content: Mapping[str, Any]
) -> tuple[dict[Any, dict[str, float]], list[Score]]:
    """Return the logged rows of a results file, (test, shots, metric) -> row -> value, and the scores with their chance
    levels."""
    time = TIME.search(path.name)
    rows: dict[Any, dict[str, float]] = {}
    chances: dict[str, float] = {}
    stamp = time[0] if time else None
    for task in dict.fromkeys(score.test for score in scores) if stamp else ():
        file = path.parent / f"samples_{task}_{stamp}.jsonl"
        if file.is_file():
            task_scores = [score for score in scores if score.test == task]
            choices = _of(content, "configs", task)
            ranked = isinstance(choices, Mapping) and choices.get("output_type") == "multiple_choice"
            values, chance = _logged(file, [score.metric for score in task_scores], ranked)
            if chance is not None:
                chances[task] = chance
            for score in task_scores:
                per_row = values.get(score.metric, {})
                if per_row and abs(sum(per_row.values()) / len(per_row) - score.value) < OFF:
                    rows[task, score.shots, score.metric] = per_row
    return rows, [replace(score, chance=chances.get(score.test, score.chance)) for score in scores]


def _logged(file: Path, metrics: Sequence[str], ranked: bool) -> tuple[dict[str, dict[str, float]], float | None]:
    """Return metric -> row -> value, and the chance level. Two runs in one second append to one file, each row twice."""
    values: dict[str, dict[str, float]] = {}
    choices: dict[str, int] = {}
    for location, row in json_lines(file):
        if "doc_id" not in row:
            raise StudyError(f"{location}: key 'doc_id' is missing; expected rows as lm-evaluation-harness logs them")
        id = f"{row['doc_id']}:{str(row.get('doc_hash', ''))[:12]}"
        if ranked and isinstance(row.get("resps"), list):
            choices[id] = len(row["resps"])
        for metric in metrics:
            name, _, filter = metric.partition(",")
            if row.get("filter", "none") == (filter or "none") and isinstance(row.get(name), int | float):
                value = float(row[name])
                if values.setdefault(metric, {}).setdefault(id, value) != value and not math.isnan(value):
                    what = f"document {row['doc_id']} occurs twice with different values of {name}"
                    raise StudyError(f"{location}: {what}, expected one run in a file")
    chance = sum(1 / n for n in choices.values()) / len(choices) if choices and all(choices.values()) else None
    return values, chance
