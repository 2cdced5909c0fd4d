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
from workflow.released.runs import Run, Score
from workflow.storage.files import json_lines, json_object

SOURCE = "results of oe-eval / OLMES (task-*-metrics.json, metrics-all.jsonl or metrics.json)"
PATTERNS = ("**/*metrics.json", "**/metrics-all.jsonl", "**/*predictions.jsonl")
LABELS: dict[str, tuple[str, str]] = {}

SINGLE, ALL, SUMMARY = "-metrics.json", "metrics-all.jsonl", "metrics.json"
OFF = 1e-6  # what a mean of rows may be off from the score in the file


def runs(path: Path, block: Mapping[str, Any]) -> Iterator[Run]:
    """The runs of a file of results, one for each task; none of a file that repeats others of its folder.

    Errors: StudyError for a file that is not one of oe-eval, or does not name model, task or demonstrations.
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
    for place, entry in entries:
        yield _run(place, path, entry)


def _summary(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The tasks of a run's summary."""
    content = json_object(path)
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(entry, dict) for entry in tasks):
        raise StudyError(f"{path}: key 'tasks' is missing or no list of objects; expected {SOURCE}")
    shared = {"model_config": content.get("model_config")}
    return [(f"{path}, task {number}", {**shared, **entry}) for number, entry in enumerate(tasks, start=1)]


def _run(place: str, path: Path, entry: Mapping[str, Any]) -> Run:
    """The run of one task."""
    metrics, model = _object(place, entry, "metrics"), _object(place, entry, "model_config")
    config = entry.get("task_config") if isinstance(entry.get("task_config"), Mapping) else {}
    metadata = config.get("metadata") if isinstance(config.get("metadata"), Mapping) else {}
    test = metadata.get("alias") or entry.get("alias") or entry.get("task_name") or config.get("task_name")
    name = model.get("model")
    for what, found in (("task_name", test), ("model_config.model", name)):
        if not isinstance(found, str) or not found:
            raise StudyError(f"{place}: found {shown(found)} as {what}, expected a name")
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
            # Without a primary metric among them the primary score is what the test is read in.
            primary = metric == (main if main in metrics else "primary_score")
            scores.append(Score(test, metric, value, shots, n=count, chance=chance, primary=primary))
    if not scores:
        raise StudyError(f"{place}: found no number in 'metrics', expected at least one")
    path_name = str(model.get("model_path") or "").rstrip("/").rsplit("/", 1)[-1] or None
    per_row = {
        (test, shots, score.metric): own
        for score in scores
        if (own := rows.get(score.metric)) and abs(sum(own.values()) / len(own) - score.value) < OFF
    }
    return Run(place, name, model.get("revision") or path_name, tuple(scores), rows=per_row)


def _object(place: str, entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside an entry."""
    found = entry.get(key)
    if not isinstance(found, Mapping):
        raise StudyError(f"{place}: key {key!r} is missing or no object; expected {SOURCE}")
    return found


def _rows(path: Path) -> tuple[dict[str, dict[str, float]], float | None]:
    """Metric -> document -> value of the predictions beside a file, and what guessing gives, by the number of answers."""
    file = path.with_name(path.name.replace("metrics.json", "predictions.jsonl"))
    values: dict[str, dict[str, float]] = {}
    guesses = []
    if not path.name.endswith(SINGLE) or not file.is_file():
        return values, None
    for place, row in json_lines(file):
        if "doc_id" not in row or not isinstance(row.get("metrics"), Mapping):
            raise StudyError(f"{place}: expected an object with 'doc_id' and 'metrics'")
        for metric, value in row["metrics"].items():
            if isinstance(value, int | float):
                if str(row["doc_id"]) in values.setdefault(metric, {}):
                    raise StudyError(f"{place}: document {row['doc_id']} is there twice, expected each once")
                values[metric][str(row["doc_id"])] = float(value)
        answers = row.get("model_output")
        guesses.append(1 / len(answers) if isinstance(answers, list) and len(answers) > 1 else None)
    chance = sum(guesses) / len(guesses) if guesses and None not in guesses else None
    return values, chance
