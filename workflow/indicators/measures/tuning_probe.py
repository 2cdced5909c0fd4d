"""What a short tuning gains: the loss of held-out rows of a task before and after a few optimizer steps.

TuneAhead (arXiv 2606.17660) forecasts a whole tuning from a probe of 100 steps; here the probe is an indicator by itself.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workflow.data.demonstrations import Rows
from workflow.errors import DivergedError, StudyError
from workflow.indicators.measuring import Loss, Material, Measurement, Progress, Subject, restored
from workflow.models.encoding import Masked, context_length, padding
from workflow.models.engine import finite, losses
from workflow.study import config as configs
from workflow.task import Task
from workflow.training import finetuning, saved_state

WARMUP = 0.1


def measure(
    subject: Subject, settings: Mapping[str, Any], material: Material, progress: Progress | None = None
) -> Measurement:
    """Variants: `before`, `after`, and their difference `drop`; a draw is a tuning on other rows in another order.

    The held-out rows are rows of the training split and the same in every draw. A tuning that diverges has no loss after.
    Errors: StudyError where the training split has too few rows, or a loss before the tuning is not finite.
    """
    (name, (task, train, _)), *_ = material.tasks.items()
    held, others = _divided(train, settings)
    recipe = _recipe(settings)
    rows = _prepared(subject, task, held, recipe, settings)
    sizes = {key: _bytes(example) for key, example in held}
    before = _losses(subject, list(rows.values()), recipe)
    for (key, row), loss in zip(rows.items(), before, strict=True):
        if math.isnan(loss):
            source = finite.source(subject.model, row.ids)
            raise StudyError(f"task {name}, row '{key}': its loss before the probe is not a finite number{source}")
    found: list[Loss] = []
    for draw in range(settings["draws"]):
        with restored(subject.model):
            seen = list(_prepared(subject, task, _drawn(others, settings, draw), recipe, settings).values())
            after = _tuned(subject, seen, list(rows.values()), recipe, draw)
        if progress:
            progress(draw + 1, settings["draws"])
        for key, one, other in zip(rows, before, after, strict=True):
            losses_of = {"before": one, "after": other, "drop": one - other}
            tokens = sum(rows[key].scored)
            found += [
                Loss(name, name, variant, draw, key, tokens, sizes[key], nll) for variant, nll in losses_of.items()
            ]
    return Measurement(found, losses.fingerprint(row.ids for row in rows.values()), {})


def _divided(train: Rows, settings: Mapping[str, Any]) -> tuple[Rows, Rows]:
    """Held-out rows, and those that may be tuned on."""
    needed = settings["validation"] + settings["steps"] * settings["batch"]
    if len(train) < needed:
        raise StudyError(
            f"{len(train)} training rows are too few for {settings['validation']} held-out ones and {settings['steps']} steps "
            f"of {settings['batch']}; lower validation, steps or batch of the indicator"
        )
    order = np.random.default_rng(settings["seed"]).permutation(len(train))
    rows = [train[place] for place in order]
    return rows[: settings["validation"]], rows[settings["validation"] :]


def _drawn(others: Rows, settings: Mapping[str, Any], draw: int) -> Rows:
    """The rows that one tuning sees, each once."""
    order = np.random.default_rng([settings["seed"], draw]).permutation(len(others))
    return [others[place] for place in order[: settings["steps"] * settings["batch"]]]


def _recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of the probe: one pass at a constant rate after the warm-up."""
    own = {key: settings[key] for key in ("learning_rate", "batch", "max_tokens", "precision")}
    return configs.recipe(
        {**own, "epochs": 1, "schedule": "constant", "warmup": WARMUP, "save_every": settings["steps"]}
    )


def _prepared(
    subject: Subject, task: Task, rows: Rows, recipe: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Masked]:
    """Rows as a tuning takes them, by id."""
    context = context_length(subject.model)
    return finetuning.prepared_rows(subject.tokenizer, context, task, rows, settings["format"], recipe)


def _losses(subject: Subject, rows: Sequence[Masked], recipe: Mapping[str, Any]) -> list[float]:
    """The summed loss of each row; NaN where it is not finite."""
    found = finetuning.validate(subject.model, rows, recipe, padding(subject.tokenizer))
    return [math.nan if row["nll"] is None else row["nll"] for row in found]


def _tuned(
    subject: Subject, seen: Sequence[Masked], held: Sequence[Masked], recipe: Mapping[str, Any], seed: int
) -> list[float]:
    """The losses of held-out rows after a tuning, which leaves the model tuned; NaN where it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        state = saved_state.State(Path(folder) / "state", "")  # of a probe that is not told to stop none is saved
        try:
            finetuning.tune(subject.model, seen, recipe, seed, padding(subject.tokenizer), state)
        except DivergedError:
            return [math.nan] * len(held)
    return _losses(subject, held, recipe)


def _bytes(example: Any) -> int:
    """Bytes of what is learned from a row: its answer, or what the assistant says."""
    said = [turn.content for turn in example.turns if turn.role == "assistant"] or [example.answer]
    return sum(len(text.encode()) for text in said)
