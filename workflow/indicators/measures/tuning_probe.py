"""Gain of a short fine-tuning: loss of a task's held-out rows before and after a few optimizer steps.

TuneAhead (arXiv 2606.17660) forecasts a whole fine-tuning run from a probe of 100 steps; here the probe is an indicator.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from workflow.data.demonstrations import Rows
from workflow.errors import DivergedError, StudyError
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts, Measurement, Progress, restored
from workflow.models.encoding import Masked, context_length, padding
from workflow.models.engine import finite, losses
from workflow.settings import Indicator, Recipe
from workflow.study import config as configs
from workflow.task import Task
from workflow.training import finetuning, saved_state

WARMUP = 0.1


def measure(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts, progress: Progress | None = None
) -> Measurement:
    """Measure the variants `before`, `after`, and their difference `drop`; each draw tunes on other rows in another order.

    The held-out rows are from the training split and the same in every draw. A run that diverges has no loss `after`.
    Errors: StudyError if the training split has too few rows, or a loss before the probe is not finite.
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
    measured: list[Loss] = []
    for draw in range(settings["draws"]):
        with restored(subject.model):
            seen = list(_prepared(subject, task, _drawn(others, settings, draw), recipe, settings).values())
            after = _tuned(subject, seen, list(rows.values()), recipe, draw)
        if progress:
            progress(draw + 1, settings["draws"])
        for key, one, other in zip(rows, before, after, strict=True):
            losses_of = {"before": one, "after": other, "drop": one - other}
            tokens = sum(rows[key].scored)
            measured += [
                Loss(name, name, variant, draw, key, tokens, sizes[key], nll) for variant, nll in losses_of.items()
            ]
    return Measurement(measured, losses.fingerprint(row.ids for row in rows.values()), {})


def _divided(train: Rows, settings: Indicator) -> tuple[Rows, Rows]:
    """Return held-out rows, and rows to tune on."""
    needed = settings["validation"] + settings["steps"] * settings["batch"]
    if len(train) < needed:
        raise StudyError(
            f"{len(train)} training rows are too few for {settings['validation']} held-out ones and {settings['steps']} steps "
            f"of {settings['batch']}; lower validation, steps or batch of the indicator"
        )
    order = np.random.default_rng(settings["seed"]).permutation(len(train))
    rows = [train[index] for index in order]
    return rows[: settings["validation"]], rows[settings["validation"] :]


def _drawn(others: Rows, settings: Indicator, draw: int) -> Rows:
    """Return the training rows of one draw, each once."""
    order = np.random.default_rng([settings["seed"], draw]).permutation(len(others))
    return [others[index] for index in order[: settings["steps"] * settings["batch"]]]


def _recipe(settings: Indicator) -> Recipe:
    """Return the recipe of the probe: one epoch at a constant learning rate after the warm-up."""
    shared = {
        key: value for key, value in settings.items() if key in ("learning_rate", "batch", "max_tokens", "precision")
    }
    return cast(
        Recipe,
        configs.recipe(
            {**shared, "epochs": 1, "schedule": "constant", "warmup": WARMUP, "save_every": settings["steps"]}
        ),
    )


def _prepared(subject: LoadedBase, task: Task, rows: Rows, recipe: Recipe, settings: Indicator) -> dict[str, Masked]:
    """Return encoded rows by id."""
    context = context_length(subject.model)
    return finetuning.prepared_rows(subject.tokenizer, context, task, rows, settings["format"], recipe)


def _losses(subject: LoadedBase, rows: Sequence[Masked], recipe: Recipe) -> list[float]:
    """Return the summed loss of each row; NaN if it is not finite."""
    validated = finetuning.validate(subject.model, rows, recipe, padding(subject.tokenizer))
    return [math.nan if row["nll"] is None else row["nll"] for row in validated]


def _tuned(
    subject: LoadedBase, seen: Sequence[Masked], held: Sequence[Masked], recipe: Recipe, seed: int
) -> list[float]:
    """Fine-tune the model in place; return the losses of held-out rows, NaN if it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        state = saved_state.State(Path(folder) / "state", "")  # never saved, unless the job is told to stop
        try:
            finetuning.tune(subject.model, seen, recipe, seed, padding(subject.tokenizer), state)
        except DivergedError:
            return [math.nan] * len(held)
    return _losses(subject, held, recipe)


def _bytes(example: Any) -> int:
    """Return the bytes of a row's scored text: its answer, or the assistant's turns."""
    texts = [turn.content for turn in example.turns if turn.role == "assistant"] or [example.answer]
    return sum(len(text.encode()) for text in texts)
