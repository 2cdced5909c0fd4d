"""Scores of a study in the formats of others: results files of lm-evaluation-harness and records of Every Eval Ever.

Both are files for one model, suite, prompt format and number of demonstrations. The model's name holds the keys that the formats
have no place for, `family+train+format+recipe+seed0`, of an untouched base the family alone; the revision is its step.
`imports` reads both back with the same scores, those of single rows from the samples beside the harness's files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.storage.files import dumped
from workflow.study import grid

WAY = ["suite", "test_format", "shots"]
SCHEMA = "0.2.1"  # of Every Eval Ever
LIMITS = (0.0, 1.0)  # metrics of Tunecast are shares, unless they have no upper limit


def write(scores: pd.DataFrame, folder: Path, time: str) -> int:
    """Write all scores that have a value to a folder, and return the number of files.

    time: of the export, ISO 8601 in UTC to the second.
    """
    count = 0
    for keys, rows in scores[scores["value"].notna()].groupby([*grid.MODEL_KEYS, *WAY], sort=True):
        model_keys = dict(zip([*grid.MODEL_KEYS, *WAY], keys, strict=True))
        file_name = _place(model_keys)
        name = f"results_{_stamp(time)}.json"
        _put(lm_eval(model_keys, rows, time), folder / "lm_eval" / file_name / name)
        _put(every_eval_ever(model_keys, rows, time), folder / "every_eval_ever" / file_name / "record.json")
        count += 2
    return count


def write_samples(
    rows: Iterable[tuple[Mapping[str, Any], Sequence[str], Sequence[float]]], folder: Path, time: str
) -> int:
    """Write the metrics of single rows beside the results files of the harness, as it logs samples; return the number of files.

    rows: keys of a model, way, test and metric, ids of the rows, and their values; those of one model and suite one after
    the other. Rows are numbered in the order of their ids, so that the same row has one number in the files of all models.
    """
    count = 0
    for _, own in itertools.groupby(rows, key=lambda entry: [entry[0][key] for key in (*grid.MODEL_KEYS, "suite")]):
        tests: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
        for keys, ids, values in own:
            samples = tests.setdefault((_place(keys), keys["test"]), {})
            for id, value in zip(ids, values, strict=True):
                samples.setdefault(id, {})[keys["metric"]] = float(value)
        for (place, test), samples in tests.items():
            path = folder / "lm_eval" / place / f"samples_{test}_{_stamp(time)}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(_sample(number, id, samples[id])) for number, id in enumerate(sorted(samples))]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        count += len(tests)
    return count


def _sample(number: int, id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """A row as the harness logs it, without its text."""
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    digest = hashlib.sha256(id.encode()).hexdigest()
    return {"doc_id": number, "doc": {"id": id}, "doc_hash": digest, "filter": "none", "metrics": list(known), **known}


def _place(keys: Mapping[str, Any]) -> str:
    """The folder of a model's files for one way of testing."""
    way = f"suite={keys['suite']}/format={keys['test_format']}/shots={keys['shots']}"
    return f"{way}/{model_name(keys)}/step{keys['step']}"


def _stamp(time: str) -> str:
    """A time as part of a file's name."""
    return time.replace(":", "-")


def _put(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file of a folder that is sealed as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumped(content), encoding="utf-8")


def model_name(keys: Mapping[str, Any]) -> str:
    """The name of a model."""
    if keys["recipe"] == "none":
        return str(keys["family"])
    return "+".join([*(str(keys[key]) for key in ("family", "train", "format", "recipe")), f"seed{keys['seed']}"])


def lm_eval(keys: Mapping[str, Any], rows: pd.DataFrame, time: str) -> dict[str, Any]:
    """A results file as lm-evaluation-harness 0.4 writes it."""
    tests = list(dict.fromkeys(rows["test"]))
    of_test = {test: rows[rows["test"] == test] for test in tests}
    shots = int(keys["shots"])
    return {
        "results": {test: {"alias": test, **_metrics(rows_of_test)} for test, rows_of_test in of_test.items()},
        "configs": {test: {"task": test, "num_fewshot": shots} for test in tests},
        "versions": dict.fromkeys(tests, 1),
        "n-shot": dict.fromkeys(tests, shots),
        "higher_is_better": {test: dict(_directions(rows_of_test)) for test, rows_of_test in of_test.items()},
        "n-samples": {
            test: {"original": n, "effective": n}
            for test, rows_of_test in of_test.items()
            if (n := _rows(rows_of_test))
        },
        "config": {
            "model": "hf",
            "model_args": {"pretrained": model_name(keys), "revision": f"step{keys['step']}"},
            "num_fewshot": shots,
            "limit": None,
        },
        "model_name": model_name(keys),
        "tunecast": {key: _plain(keys[key]) for key in (*grid.MODEL_KEYS, *WAY)},
        "end_time": time,
    }


def _metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """The metrics of one test, each with its standard error."""
    results: dict[str, Any] = {}
    for row in rows.to_dict("records"):
        results[f"{row['metric']},none"] = float(row["value"])
        results[f"{row['metric']}_stderr,none"] = _known(row["error"]) if _known(row["error"]) is not None else "N/A"
    return results


def _directions(rows: pd.DataFrame) -> Iterator[tuple[str, bool]]:
    """Each metric that is better one way, with whether higher is better."""
    for metric, better in zip(rows["metric"], rows["better"], strict=True):
        if better in ("higher", "lower"):
            yield metric, better == "higher"


def _rows(rows: pd.DataFrame) -> int | None:
    """The number of rows of a test, where it is known and the same for all its metrics."""
    counts = set(rows["n"].dropna().astype(int))
    return counts.pop() if len(counts) == 1 else None


def every_eval_ever(keys: Mapping[str, Any], rows: pd.DataFrame, time: str) -> dict[str, Any]:
    """A record of Every Eval Ever (schema 0.2.1, github.com/evaleval/every_eval_ever). Details are texts, as it asks for."""
    name = model_name(keys)
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{keys['suite']}/{name}-step{keys['step']}/{time}",
        "evaluation_timestamp": time,
        "retrieved_timestamp": str(pd.Timestamp(time).timestamp()),
        "source_metadata": {
            "source_name": "Tunecast",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "tunecast", "version": _version()},
        "model_info": {
            "name": name,
            "id": name,
            "additional_details": {
                "revision": f"step{keys['step']}", **{key: str(keys[key]) for key in grid.MODEL_KEYS},
            },
        },
        "evaluation_results": [_result(keys, row) for row in rows.to_dict("records")],
    }  # fmt: skip


def _result(keys: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """One score of a record."""
    low, high = LIMITS
    share = low <= row["value"] <= high
    limits = {"score_type": "continuous", "min_score": low, "max_score": high} if share else {}
    uncertainty: dict[str, Any] = {}
    if (error := _known(row["error"])) is not None:
        uncertainty["standard_error"] = {"value": error}
    if _known(row["low"]) is not None and _known(row["high"]) is not None:
        uncertainty["confidence_interval"] = {"lower": float(row["low"]), "upper": float(row["high"])}
    if _known(row["n"]) is not None:
        uncertainty["num_samples"] = int(row["n"])
    return {
        "evaluation_name": row["test"],
        "source_data": {"dataset_name": row["test"], "source_type": "other"},
        "metric_config": {
            "lower_is_better": row["better"] == "lower",
            **limits,
            "metric_id": row["metric"],
            "evaluation_description": row["metric"],
        },
        "score_details": {"score": float(row["value"]), **({"uncertainty": uncertainty} if uncertainty else {})},
        "generation_config": {
            "additional_details": {
                "num_fewshot": str(keys["shots"]), "prompt_format": str(keys["test_format"]), "suite": str(keys["suite"]),
            }
        },
    }  # fmt: skip


def _known(value: Any) -> float | None:
    """A number; None for one that is not known."""
    return None if value is None or pd.isna(value) or not math.isfinite(float(value)) else float(value)


def _plain(value: Any) -> int | str:
    """A key as JSON holds it."""
    return value if isinstance(value, str) else int(value)


def _version() -> str:
    """The version of Tunecast, where it is installed."""
    try:
        return version("tunecast")
    except PackageNotFoundError:  # it runs from its folder as well
        return "unknown"
