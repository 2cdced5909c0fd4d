"""Tuning: tokens a second, share of the peak, memory; beside transformers' Trainer."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import measuring, subjects
from benchmarks.gpu.subjects import Setting
from workflow.models.engine import feeding
from workflow.training import finetuning, saved_state

WARM, STEPS = 3, 12


def ours(setting: Setting, method: str, rows: str, shape: str = "1B", tokens: int = subjects.CONTEXT) -> dict[str, Any]:
    """Optimizer steps of eight rows each, after some that do not count."""
    recipe = subjects.recipe(method, "bf16", tokens)
    warm, steps = setting.number(WARM, 1), setting.number(STEPS, 2)
    steps = min(steps, 6) if rows == "2k" and shape == "1B" else steps
    limit = setting.number(tokens, 64)
    lessons = subjects.lesson_rows(rows, 8 * (warm + steps), limit)
    model = subjects.olmo(setting, shape, torch.float32)
    measuring.forget_peak(setting)
    model = finetuning.adapted(model, recipe, 0) if method == "lora" else model
    optimizer = finetuning._optimizer(model, recipe)
    model.train()
    batches = [lessons[start : start + 8] for start in range(0, len(lessons), 8)]
    with feeding.losses(model, 1) as read:
        taken = finetuning.Steps(model, optimizer, read, recipe, 8)
        for batch in batches[:warm]:
            taken.take(batch, 1e-6)
        time, _ = measuring.seconds(lambda: [taken.take(batch, 1e-6) for batch in batches[warm:]], setting)
    counted = [row for batch in batches[warm:] for row in batch]
    fed, read_at = sum(len(row.ids) - 1 for row in counted), sum(sum(row.scored) for row in counted)
    inner = model.get_base_model() if method == "lora" else model
    # Of frozen weights no gradient is computed: 4 operations.
    done = measuring.operations(inner, fed, read_at, 4 if method == "lora" else 6)
    return {
        "tokens/s": round(fed / time), "% of peak": measuring.of_peak(done, time),
        "ms a step": round(1000 * time / steps, 1), "tokens a step": round(fed / steps),
        "rows at once": taken.together, "repeatable": taken.repeatable, "GB": measuring.peak(setting),
        "GB reckoned": measuring.reckoned("tuning", setting, shape, recipe | {"max_tokens": limit}),
    }  # fmt: skip


def trainer(setting: Setting, rows: str) -> dict[str, Any]:
    """The same rows by transformers' Trainer, padded to the longest of a batch, in bf16."""
    from transformers import Trainer, TrainingArguments

    steps = setting.number(10, 2)
    size = 4 if rows == "2k" else 8  # its scores over the vocabulary at all places leave 80 GB no room for eight
    lessons = subjects.lesson_rows(rows, size * steps, setting.number(subjects.CONTEXT, 64))
    data = [
        {
            "input_ids": row.ids,
            "labels": [token if scored else -100 for token, scored in zip(row.ids, row.scored, strict=True)],
        }
        for row in lessons
    ]
    model = subjects.olmo(setting, "1B", torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=size, num_train_epochs=1, learning_rate=2e-6, bf16=True,
            train_sampling_strategy="sequential", logging_strategy="no", save_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=setting.small, dataloader_pin_memory=not setting.small,
        )  # fmt: skip
        marks: list[float] = []
        made = Trainer(model, arguments, collated, data, callbacks=[_Marks(marks)])
        made.train()
    half = len(marks) // 2
    fed = sum(len(row.ids) - 1 for row in lessons[size * half :])
    return {"tokens/s": round(fed / (marks[-1] - marks[half - 1])), "GB": measuring.peak(setting)}


def _Marks(marks: list[float]) -> Any:  # noqa: N802 - makes an object of a class that transformers has to bring
    import time

    from transformers import TrainerCallback

    class Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    return Marks()


def collated(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch padded on the right."""
    longest = max(len(row["input_ids"]) for row in batch)
    gaps = [longest - len(row["input_ids"]) for row in batch]
    pairs = list(zip(batch, gaps, strict=True))
    return {
        "input_ids": torch.tensor([row["input_ids"] + [1] * gap for row, gap in pairs]),
        "labels": torch.tensor([row["labels"] + [-100] * gap for row, gap in pairs]),
        "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for _, gap in pairs]),
    }


def whole(setting: Setting, model: Any, rows: list[Any], precision: str) -> list[float]:
    """Losses of a whole tuning, from its start to its end."""
    recipe = subjects.recipe("full", precision, subjects.CONTEXT)
    with tempfile.TemporaryDirectory() as folder:
        state = saved_state.State(Path(folder) / "state", "benchmark")
        return [row["loss"] for row in finetuning.tune(model, rows, recipe, 0, 1, state)]


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "full, MNLI rows": functools.partial(ours, method="full", rows="mnli"),
    "full, 2k tokens": functools.partial(ours, method="full", rows="2k"),
    "full, XSum rows": functools.partial(ours, method="full", rows="xsum"),
    "LoRA, MNLI rows": functools.partial(ours, method="lora", rows="mnli"),
    "LoRA, 2k tokens": functools.partial(ours, method="lora", rows="2k"),
    "7B LoRA, 512 tokens": functools.partial(ours, method="lora", rows="2k", shape="7B", tokens=512),
    "Trainer, MNLI rows": functools.partial(trainer, rows="mnli"),
    "Trainer, 2k tokens": functools.partial(trainer, rows="2k"),
}
