"""Results of oe-eval, the harness behind OLMES (arXiv 2406.08446).

`task-<number>-<task>-metrics.json` holds one task of one model, `metrics-all.jsonl` one a line, `metrics.json` all of a run
below `tasks`; of these three the first that a folder has is read. `…-predictions.jsonl` beside it holds the rows. A test is
named by the alias of its configuration (`arc_challenge:rc::olmes`), since the same task is asked in several ways, and read in
the task's primary metric. No standard error is released: that of a share follows from its rows.

The model is `model_config.model`, the revision `model_config.revision`; where there is none the last part of `model_path`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, shown
from workflow.released.runs import Run, Score, mean_chance, optional_object
from workflow.settings import Import
from workflow.storage.files import json_lines, json_object

SOURCE = "results of oe-eval / OLMES (task-*-metrics.json, metrics-all.jsonl or metrics.json)"
PATTERNS = ("**/*metrics.json", "**/metrics-all.jsonl", "**/*predictions.jsonl")
LABELS: dict[str, tuple[str, str]] = {}

SINGLE, ALL, SUMMARY = "-metrics.json", "metrics-all.jsonl", "metrics.json"
OFF = 1e-6  # what a mean of rows may be off from the score in the file


def runs(path: Path, block: Import) -> Iterator[Run]:
    """Yield the runs of a results file, one for each task; nothing for a file that repeats others of its folder.

    Errors: StudyError for a file not written by oe-eval, or without model, task or number of few-shot examples.
    """
    folder = path.parent
    single = any(folder.glob(f"*{SINGLE}"))
    if path.name.endswith("predictions.jsonl"):
        return
    if path.name == ALL:
        entries = [] if single else list(json_lines(path))
    elif path.name == SUMMARY:
        entries = [] if single or (folder / ALL).is_file() else _summary(path)
    else:
        entries = [(str(path), json_object(path))]
    for location, entry in entries:
        yield _run(location, path, entry)


def _summary(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the tasks of a run's summary."""
    content = json_object(path)
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(entry, dict) for entry in tasks):
        raise StudyError(f"{path}: key 'tasks' is missing or no list of objects; expected {SOURCE}")
    shared = {"model_config": content.get("model_config")}
    return [(f"{path}, task {number}", {**shared, **entry}) for number, entry in enumerate(tasks, start=1)]


def _run(location: str, path: Path, entry: Mapping[str, Any]) -> Run:
    """Return the run of one task."""
    metrics, model = _object(location, entry, "metrics"), _object(location, entry, "model_config")
    config = optional_object(entry, "task_config")
    metadata = optional_object(config, "metadata")
    alias = metadata.get("alias") or entry.get("alias") or entry.get("task_name") or config.get("task_name")
    test, name = _name(location, "task_name", alias), _name(location, "model_config.model", model.get("model"))
    shots = config.get("num_shots")
    count = entry.get("num_instances")
    rows, chance = _rows(path)
    main = config.get("primary_metric")
    scores = []
    for metric, value in metrics.items():
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and (metric != "primary_score" or main not in metrics)
        ):
            # If the metrics lack the declared primary one, `primary_score` is used.
            primary = metric == (main if main in metrics else "primary_score")
            scores.append(Score(test, metric, value, shots, n=count, chance=chance, primary=primary))
    if not scores:
        raise StudyError(f"{location}: found no number in 'metrics', expected at least one")
    path_name = str(model.get("model_path") or "").rstrip("/").rsplit("/", 1)[-1] or None
    per_row = {
        (test, shots, score.metric): values
        for score in scores
        if (values := rows.get(score.metric)) and abs(sum(values.values()) / len(values) - score.value) < OFF
    }
    return Run(location, name, model.get("revision") or path_name, tuple(scores), rows=per_row)


def _name(location: str, key: str, value: Any) -> str:
    """Return the name under a key; StudyError for any other value."""
    if not isinstance(value, str) or not value:
        raise StudyError(f"{location}: found {shown(value)} as {key}, expected a name")
    return value


def _object(location: str, entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a required object of an entry."""
    value = entry.get(key)
    if not isinstance(value, Mapping):
        raise StudyError(f"{location}: key {key!r} is missing or no object; expected {SOURCE}")
    return value


def _rows(path: Path) -> tuple[dict[str, dict[str, float]], float | None]:
    """Return metric -> document -> value from the predictions beside a file, and chance from the number of answers."""
    file = path.with_name(path.name.replace("metrics.json", "predictions.jsonl"))
    values: dict[str, dict[str, float]] = {}
    guesses = []
    if not path.name.endswith(SINGLE) or not file.is_file():
        return values, None
    for location, row in json_lines(file):
        if "doc_id" not in row or not isinstance(row.get("metrics"), Mapping):
            raise StudyError(f"{location}: expected an object with 'doc_id' and 'metrics'")
        for metric, value in row["metrics"].items():
            if isinstance(value, int | float):
                if str(row["doc_id"]) in values.setdefault(metric, {}):
                    raise StudyError(f"{location}: document {row['doc_id']} occurs twice, expected each once")
                values[metric][str(row["doc_id"])] = float(value)
        answers = row.get("model_output")
        guesses.append(1 / len(answers) if isinstance(answers, list) and len(answers) > 1 else None)
    return values, mean_chance(guesses)
