"""Tables of a made-up study for tests of the page: names and texts can be chosen, sizes too."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from workflow.report.page.inputs import PageInputs

WAY = {"suite": "s", "test_format": "default", "shots": 0}


def score(step: int, train: str, test: str, value: float, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    """A row of scores."""
    tuned = train != "none"
    keys = {"family": "fam", "step": step, "train": train, "format": "default" if tuned else "none"}
    keys |= {"recipe": "full" if tuned else "none", "seed": 0, **WAY, "test": test, "metric": metric}
    figures = {"value": value, "error": 0.04, "low": value - 0.08, "high": value + 0.08, "n": 100}
    rest = {"primary": metric == "accuracy", "better": "higher", "part_of": None, "tokens": 1000.0 * step}
    return keys | figures | rest | more


def change(step: int, train: str, test: str, value: float, p_value: float, family: str = "fam") -> dict[str, Any]:
    """A row of the analysis: tuned minus untouched."""
    keys = {
        "analysis": "tuning_difference",
        "group": None,
        "family": family,
        "step": step,
        "train": train,
        "format": "default",
    }
    figures = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 100, "p_value": p_value}
    return keys | {
        "recipe": "full",
        **WAY,
        "test": test,
        "estimator": "difference_of_means",
        **figures,
        "seed_variance": False,
    }


def level(step: int, train: str, test: str, value: float, family: str = "fam") -> dict[str, Any]:
    """A row of the analysis: a mean score."""
    row = change(step, train, test, value, 1.0, family) | {"analysis": "performance", "estimator": "mean"}
    return row if train != "none" else row | {"format": "none", "recipe": "none"}


def recommended(task: str, values: dict[int, tuple[float, float]], recipe: str = "full") -> list[dict[str, Any]]:
    """Rows of the recommendations of a task. values: step -> score, probability to be the best."""
    where = {"train": task, "test": task, "format": "default", "recipe": recipe, **WAY, "metric": "accuracy"}
    keys = {"task": task, "recipe": recipe, "suite": "s", "family": "fam", "indicator": None}
    keys |= {"table": "scores", "filter": json.dumps(where)}
    order = sorted(values, key=lambda step: -values[step][0])
    rows = [
        {
            **keys,
            "topic": "base",
            "step": step,
            "statement": f"{task}: step {step}",
            "value": value,
            "low": value - 0.08,
        }
        | {"high": value + 0.08, "probability": chance, "n": 100}
        for step in order
        for value, chance in [values[step]]
    ]
    later = {
        **keys,
        "topic": "pretraining",
        "step": None,
        "statement": f"{task}: no forecast",
        "value": None,
        "low": None,
    }
    return [rows[0] | {"topic": "answer", "statement": f"{task}: the answer"}, *rows, later | {"high": None, "n": 0}]


def inputs(texts: tuple[str, ...] = (), **tables: pd.DataFrame) -> PageInputs:
    """A study of two checkpoints and one task; texts: put into names, labels, evidence and columns."""
    task = texts[0] if texts else "quiz"
    other = texts[1] if len(texts) > 1 else "essay"
    scores = [
        score(step, train, test, 0.3 + 0.1 * step)
        for step in (1, 2)
        for train in ("none", task)
        for test in (task, other)
    ]
    scores += [score(step, task, task, 0.25, "chance", primary=False) for step in (1, 2)]
    analysis = [level(s, train, test, 0.4) for s in (1, 2) for train in ("none", task) for test in (task, other)]
    analysis += [
        change(step, task, test, 0.2 if test == task else -0.2, 1e-6) for step in (1, 2) for test in (task, other)
    ]
    statements = [*texts, "Tuning helps: significant (Holm)."]
    findings = [
        {"section": "tuned", "finding": "gains", "statement": text, "value": 0.1, "low": 0.0, "high": 0.2, "n": 3}
        | {"table": "scores", "filter": json.dumps({"train": task}), "warnings": [f"warning, single_seeds: {text}"]}
        for text in statements
    ]
    audit = [{"severity": "warning", "check": "single_seeds", "family": "fam", "evidence": text} for text in statements]
    made = {
        "scores": pd.DataFrame(scores),
        "analysis": pd.DataFrame(analysis),
        "recommendations": pd.DataFrame(recommended(task, {1: (0.4, 0.2), 2: (0.5, 0.8)})),
        "findings": pd.DataFrame(findings),
        "audit": pd.DataFrame(audit),
        "tables/own": pd.DataFrame({text or "empty": [text] for text in statements}),
    }
    settings = {"statistics": {"level": 0.95, "seed": 0}, "groups": {}, "cohorts": {}, "families": {"fam": {}}}
    settings |= {
        "recipes": {"full": {"method": "full"}, "lora": {"method": "lora"}},
        "suites": {"s": {"protocol": "sound"}},
    }
    return PageInputs(made | tables, settings | {"note": list(texts)})
