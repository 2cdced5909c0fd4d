"""Records of Every Eval Ever (evaleval/every_eval_ever on GitHub), versions 0.2 and 0.3 of its schema: one JSON a model.

`evaluation_results` lists evaluations, each with its metric, score and, where known, standard error. The schema has no place
for a training step or a number of demonstrations: the step is in the model's id or its `additional_details` (keys
`revision`, `step`), the demonstrations in those of the generation, or `shots` of the import says it. A metric whose scores go up
to 100 becomes a share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, shown
from workflow.released.runs import Run, Score, optional_object
from workflow.settings import Import
from workflow.storage.files import json_object, stated_number

SOURCE = "records of Every Eval Ever (JSON with schema_version and evaluation_results)"
PATTERNS = ("**/*.json",)
LABELS: dict[str, tuple[str, str]] = {}

SHOTS = ("num_fewshot", "n_shot", "n-shot", "shots", "num_shots")


def runs(path: Path, block: Import) -> Iterator[Run]:
    """Yield the run of a record.

    Errors: StudyError for a file that is no such record, or lacks model, score or metric.
    """
    content = json_object(path)
    results, model = content.get("evaluation_results"), content.get("model_info")
    if not isinstance(results, list) or not isinstance(model, Mapping):
        raise StudyError(f"{path}: key 'evaluation_results' or 'model_info' is missing; expected {SOURCE}")
    name = model.get("id") or model.get("name")
    if not isinstance(name, str) or not name:
        raise StudyError(f"{path}: found {shown(name)} as model_info.id, expected the model")
    details = _details(model)
    scores = tuple(_score(f"{path}, result {number}", entry) for number, entry in enumerate(results, start=1))
    if not scores:
        raise StudyError(f"{path}: found no entry in 'evaluation_results', expected at least one")
    facts: dict[str, str | int | float] = {key: details[key] for key in ("step", "seed", "tokens") if key in details}
    yield Run(str(path), name, details.get("revision"), scores, facts, _date(content))


def _details(entry: Any) -> dict[str, str]:
    """Return the additional details of a part of a record."""
    details = entry.get("additional_details") if isinstance(entry, Mapping) else None
    return {str(key): str(value) for key, value in details.items()} if isinstance(details, Mapping) else {}


def _score(location: str, entry: Any) -> Score:
    """Return the score of one evaluation."""
    if not isinstance(entry, Mapping):
        raise StudyError(f"{location}: found {shown(entry)}, expected an object")
    metric, score = entry.get("metric_config"), entry.get("score_details")
    if not isinstance(metric, Mapping) or not isinstance(score, Mapping):
        raise StudyError(f"{location}: key 'metric_config' or 'score_details' is missing; expected both")
    unsure = optional_object(score, "uncertainty")
    error = unsure.get("standard_error")
    error = _number(location, error.get("value") if isinstance(error, Mapping) else error)
    value, count = score.get("score"), unsure.get("num_samples")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"{location}: found {shown(value)} as score_details.score, expected a number")
    if metric.get("max_score") == 100:
        value, error = value / 100, None if error is None else error / 100
    lower = metric.get("lower_is_better")
    return Score(
        str(entry.get("evaluation_name") or ""),
        str(metric.get("metric_id") or metric.get("metric_name") or "score"),
        value,
        _shots(entry),
        error,
        count if isinstance(count, int) and count > 0 else None,
        better=None if lower is None else "lower" if lower else "higher",
    )


def _number(location: str, value: Any) -> float | None:
    """Return a number that may be text; None if there is none."""
    if value is None:
        return None
    try:
        return stated_number(value)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{location}: found {shown(value)} as standard error, expected a number") from error


def _shots(entry: Mapping[str, Any]) -> int | None:
    """Return the number of few-shot examples from the details of metric or generation; None if they lack it."""
    for part in (entry.get("generation_config"), entry.get("metric_config"), entry.get("source_data")):
        details = _details(part)
        for key in SHOTS:
            if details.get(key, "").isdecimal():
                return int(details[key])
    return None


def _date(content: Mapping[str, Any]) -> float:
    """Return the time of the evaluation, else of the record; 0 if unknown."""
    for key in ("evaluation_timestamp", "retrieved_timestamp"):
        text = str(content.get(key) or "")
        with contextlib.suppress(ValueError):
            return float(text)
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text).timestamp()
    return 0.0
