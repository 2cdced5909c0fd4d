"""Scores along pre-training as released by others: result files of lm-evaluation-harness, one a checkpoint, as curves.

For benchmarks only; a study reads such files with `imports`. A series is one folder of files whose names differ in their step.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from workflow.analysis.curves import Curve, curve
from workflow.analysis.evidence import PAIR_KEYS, Reported
from workflow.statistics import Resampling

NAME = re.compile(r"^(?P<series>.+?)[_-]step(?P<step>\d+)\.json$")
KEYS = dict.fromkeys(PAIR_KEYS, "none") | {"shots": 0}
Points = dict[int, tuple[float, float]]


def read(folder: Path) -> dict[tuple[str, str], Points]:
    """Accuracies by series and test: step -> score and standard error."""
    found: dict[tuple[str, str], Points] = {}
    for path in sorted(folder.rglob("*.json")):
        name = NAME.match(path.name)
        results = json.loads(path.read_text())["results"] if name else None
        if name is None or not isinstance(results, dict):
            continue
        series = f"{path.parent.relative_to(folder)}/{name['series']}"
        for test, metrics in results.items():
            if "acc" in metrics and "acc_stderr" in metrics:
                found.setdefault((series, test), {})[int(name["step"])] = (metrics["acc"], metrics["acc_stderr"])
    return found


def reported(points: Points, **keys: Any) -> list[Reported]:
    """Scores as evidence holds them."""
    return [Reported(KEYS | keys | {"step": step}, value, error) for step, (value, error) in sorted(points.items())]


def released(points: Points, how: Resampling, **keys: Any) -> Curve:
    """A series as a curve with resamples."""
    return curve(reported(points, **keys), how)


def numbers(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, scores and standard errors, each of shape (steps,)."""
    steps = np.array(sorted(points), dtype=float)
    return steps, *np.array([points[int(step)] for step in steps]).T
