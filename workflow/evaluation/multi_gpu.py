"""Predictions of a model that is sharded over several GPUs of one machine (see `models.sharding`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from workflow import registry, task
from workflow.evaluation import prediction
from workflow.jobs.processes import Progress
from workflow.models import loading, sharding
from workflow.settings import Base, Suite

MODULE = "workflow.evaluation.multi_gpu"  # `__name__` is `__main__` in the processes


def predict(
    base: Base,
    tuned: str | None,
    suite: Suite,
    tests: Mapping[str, str],
    gpus: int,
    beside: Path,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return all predictions of a suite, as `prediction.predict` does, for the model that `loading.ready` loads.

    tests: name -> file of the prepared task; beside: path next to which the processes write temporary files.
    Errors: as `prediction.predict`, and StudyError if memory runs out; RuntimeError if a process ended unexpectedly.
    """
    work = {"base": dict(base), "model": tuned, "suite": dict(suite), "tests": dict(tests)}
    work["declared"] = yaml.safe_dump(registry.tasks.blocks)  # JSON would make text of keys that are numbers
    with sharding.done(MODULE, work, gpus, beside, progress) as (rows, _):
        return rows


def _predicted(work: Mapping[str, Any], device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Return all predictions of a suite."""
    suite = work["suite"]
    registry.declare({"tasks": yaml.safe_load(work["declared"])})
    model, tokenizer = loading.ready(work["base"], work["model"], suite["precision"], "cpu")
    sharding.spread(model, device)
    tests = {name: task.tested(name, Path(path)) for name, path in work["tests"].items()}
    return list(prediction.predict(model, tokenizer, suite, tests, sharding.printed))


if __name__ == "__main__":
    sharding.serve(Path(sys.argv[1]), _predicted)
