"""Results of lighteval, `results/<model>/results_<time>.json`, with details in `details/<model>/<time>/details_*.parquet`.

`results` maps `suite|task|shots` (older versions `suite|task|shots|truncation`, newer ones `task|shots`; in some files : for
|) to metrics and their `_stderr`. The number of demonstrations is in that name. The test is named without it, by suite and
task. `all` is a mean of everything and left out; `<task>:_average` is kept, as the mean that the task's subsets are parts of.

The model is `config_general.model_name`, or `model_name` of its `model_config`, whose `revision` it is. What one row of details
holds is the row's place: documents have no name that all versions keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workflow.errors import StudyError, first_line, shown
from workflow.released.runs import Run, Score, mean_chance, optional_object
from workflow.settings import Import
from workflow.storage.files import json_object

SOURCE = "results of lighteval (results_*.json)"
PATTERNS = ("**/results_*.json", "**/details_*.parquet")
LABELS: dict[str, tuple[str, str]] = {}

AVERAGE = "_average"
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?")
OFF = 1e-6  # what a mean of rows may be off from the score in the file


def runs(path: Path, block: Import) -> Iterator[Run]:
    """Yield the run of a results file; nothing for a details file, which is read with its results.

    Errors: StudyError for a file not written by lighteval, or without model or number of few-shot examples.
    """
    if path.suffix == ".parquet":
        return
    content = json_object(path)
    results, general = (_object(path, content, key) for key in ("results", "config_general"))
    config = optional_object(general, "model_config")
    name = config.get("model_name") or general.get("model_name")
    if not isinstance(name, str) or not name:
        raise StudyError(f"{path}: found {shown(name)} as config_general.model_name, expected the model")
    revision = config.get("revision") or general.get("model_revision")
    scores: list[Score] = []
    rows: dict[Any, dict[str, float]] = {}
    for key, task_results in results.items():
        if key != "all":
            task_scores, per_row = _task(path, key, task_results, content)
            scores += task_scores
            rows |= per_row
    if not scores:
        raise StudyError(f"{path}: found no task in 'results' but 'all', expected at least one")
    yield Run(str(path), name, None if revision is None else str(revision), tuple(scores), date=_date(path), rows=rows)


def _object(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a required object of the file."""
    if not isinstance(content.get(key), Mapping):
        raise StudyError(f"{path}: key {key!r} is missing or no object; expected {SOURCE}")
    return content[key]


def _named(path: Path, key: str) -> tuple[str, int]:
    """Return test and number of few-shot examples from the name of a task."""
    parts = key.split("|")
    if len(parts) == 1:
        parts = key.rsplit(":", 1)
    shots = parts[2] if len(parts) == 4 else parts[-1]
    if len(parts) < 2 or not shots.isdecimal():
        raise StudyError(f"{path}: found {shown(key)} in 'results', expected suite|task|shots or task|shots")
    return "|".join(parts[:2] if len(parts) == 4 else parts[:-1]), int(shots)


def _task(
    path: Path, key: str, task_results: Any, content: Mapping[str, Any]
) -> tuple[list[Score], dict[Any, dict[str, float]]]:
    """Return the scores of a task and their rows."""
    if not isinstance(task_results, Mapping):
        raise StudyError(
            f"{path}: found {shown(task_results)} as results of {key}, expected an object metric -> number"
        )
    test, shots = _named(path, key)
    values, chance = _details(path, key)
    config = optional_object(content, "config_tasks")
    entries = [optional_object(config, name) for name in (key, key.rsplit("|", 1)[0])]
    stated = next((entry for entry in entries if entry), {})
    count = stated.get("effective_num_docs")
    count = count if isinstance(count, int) and count > 0 else None
    part = _whole(key, test, content["results"])
    scores = [
        Score(test, metric, value, shots, task_results.get(f"{metric}_stderr"), count, chance, part_of=part)
        for metric, value in task_results.items()
        if not metric.endswith("_stderr")
    ]
    rows = {
        (test, shots, score.metric): per_row
        for score in scores
        if (per_row := values.get(score.metric)) and abs(sum(per_row.values()) / len(per_row) - score.value) < OFF
    }
    return scores, rows


def _whole(key: str, test: str, results: Mapping[str, Any]) -> str | None:
    """Return the average that a task's subset is part of; None if there is none."""
    task, colon, subset = test.rpartition(":")
    mean = f"{task}:{AVERAGE}"
    present = any(mean == name.rsplit("|", 1)[0] or name.startswith(f"{mean}|") for name in results)
    return mean if colon and subset != AVERAGE and present else None


def _details(path: Path, key: str) -> tuple[dict[str, dict[str, float]], float | None]:
    """Return metric -> row -> value from a task's details, and the chance level from the number of choices."""
    file = _details_file(path, key)
    if file is None:
        return {}, None
    try:
        rows = pq.ParquetFile(file).read().to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise StudyError(f"{file}: cannot be read as Parquet, perhaps cut short: {first_line(error)}") from error
    values: dict[str, dict[str, float]] = {}
    guesses = []
    for number, row in enumerate(rows):
        metrics = row.get("metric") or row.get("metrics")
        for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
            if isinstance(value, int | float):
                values.setdefault(metric, {})[str(number)] = float(value)
        choices = row["doc"].get("choices") if isinstance(row.get("doc"), Mapping) else None
        guesses.append(1 / len(choices) if isinstance(choices, list) and len(choices) > 1 else None)
    return values, mean_chance(guesses)


def _details_file(path: Path, key: str) -> Path | None:
    """Return the details file of a task in a results file; file names write | and : in several ways."""
    time = TIME.search(path.name)
    root = next((parent for parent in path.parents if parent.name == "results"), None)
    if time is None or root is None:
        return None
    folder = root.parent / "details" / path.parent.relative_to(root) / time[0]
    wanted = re.sub(r"[^A-Za-z0-9]+", "_", f"details_{key}_{time[0]}")
    candidates = sorted(folder.glob("details_*.parquet"))
    return next((file for file in candidates if re.sub(r"[^A-Za-z0-9]+", "_", file.stem) == wanted), None)


def _date(path: Path) -> float:
    """Return the time in a file's name; 0 if it has none."""
    time = TIME.search(path.name)
    return (
        datetime.strptime(time[0].split(".")[0], "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC).timestamp() if time else 0.0
    )
