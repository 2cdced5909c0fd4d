"""How far results on a GPU are from one-row loops, `generate` row by row and transformers' Trainer."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu import subjects, tuning
from benchmarks.gpu.subjects import Setting
from workflow.models.engine import generation, scoring

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def requests(setting: Setting) -> list[tuple[list[int], list[int]]]:
    """Contexts with long and short shared beginnings, each with one to four continuations of one to six tokens."""
    generator = random.Random(0)
    size = setting.number(1500, 300)

    def ids(length: int) -> list[int]:
        return [generator.randrange(2, size) for _ in range(length)]

    shown = ids(setting.number(900, 60))
    contexts = [[*(shown if row % 2 else []), *ids(generator.randrange(5, 90))] for row in range(setting.number(40, 6))]
    return [(context, ids(generator.randrange(1, 7))) for context in contexts for _ in range(generator.randrange(1, 5))]


@torch.inference_mode()
def alone(model: Any, asked: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Log-probabilities by a loop over rows with the model's own attention."""
    found = []
    for context, ids in asked:
        fed = torch.tensor([[*context, *ids]], device=model.device)
        logits = model(input_ids=fed, use_cache=False).logits[0, len(context) - 1 : -1].double().log_softmax(dim=-1)
        found.append(float(logits[range(len(ids)), ids].sum()))
    return found


def log_probabilities(setting: Setting, precision: str) -> dict[str, Any]:
    """Tunecast against the loop in the same precision, and both against the loop in fp32."""
    asked = requests(setting)
    model = subjects.olmo(setting, "1B", torch.float32)
    exact = alone(model, asked)
    model = subjects.cast(model, DTYPES[precision])
    found, loop = scoring.log_probabilities(model, asked, 8192), alone(model, asked)

    def apart(one: Sequence[float], other: Sequence[float]) -> float:
        return float(f"{max(abs(a - b) for a, b in zip(one, other, strict=True)):.2e}")

    return {
        "largest difference to the loop": apart(found, loop), "to the loop in fp32": apart(found, exact),
        "of the loop to itself in fp32": apart(loop, exact), "requests": len(asked),
    }  # fmt: skip


def greedy(setting: Setting, precision: str) -> dict[str, Any]:
    """Texts that are those of `generate` row by row, and tokens before the first that differs."""
    model, words = subjects.olmo(setting, "1B", DTYPES[precision]), subjects.tokenizer()
    contexts = [context for context, _ in itertools.groupby(requests(setting), key=lambda pair: pair[0])]
    contexts = contexts[: setting.number(24, 4)]
    new = setting.number(40, 6)
    found = generation.greedy(model, words, contexts, new, (), 8192)
    same, before = 0, []
    for context, own in zip(contexts, found, strict=True):
        expected = _generated(model, context, new, words.eos_token_id)
        same += own == expected
        before.append(
            sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(own, expected, strict=False)))
        )
    return {
        "same texts": same,
        "texts": len(contexts),
        "tokens before a difference": round(sum(before) / len(before), 1),
    }


@torch.inference_mode()
def _generated(model: Any, context: list[int], new: int, end: int) -> list[int]:
    fed = torch.tensor([context], device=model.device)
    made = model.generate(
        fed, attention_mask=torch.ones_like(fed), do_sample=False, max_new_tokens=new, eos_token_id=end, pad_token_id=1
    )
    return list(itertools.takewhile(lambda token: token != end, made[0, len(context) :].tolist()))


def flips(setting: Setting) -> dict[str, Any]:
    """Predictions of a thousand that are others in bf16, of a model that a few steps have tuned."""
    model, words = subjects.olmo(setting, "1B", torch.float32), subjects.tokenizer()
    tuning.whole(setting, model, subjects.lesson_rows("mnli", setting.number(480, 16), 64), "bf16")
    rows = setting.number(1000, 8)
    exact = subjects.evaluated(model, words, "mnli", rows, 0)
    half = subjects.evaluated(subjects.cast(model, torch.bfloat16), words, "mnli", rows, 0)
    others = sum(one["output"] != other["output"] for one, other in zip(exact, half, strict=True))
    return {"flips per 1,000": round(1000 * others / len(exact), 1), "rows": len(exact)}


def losses(setting: Setting, precision: str) -> dict[str, Any]:
    """Losses of steps beside those of transformers' Trainer with the same weight for each row."""
    from workflow.training.finetuning import order

    rows = subjects.lesson_rows("mnli", setting.number(96, 16), setting.number(256, 64))
    model = subjects.olmo(setting, "1B", torch.float32)
    own = tuning.whole(setting, model, rows, precision)
    del model
    theirs = _trained(setting, [rows[place] for place in order(len(rows), 1, 0)], precision)
    gap = max(abs(one - other) for one, other in zip(own, theirs, strict=True))
    return {"largest difference": float(f"{gap:.2e}"), "steps": len(own), "last loss": round(own[-1], 4)}


def _trained(setting: Setting, rows: Sequence[Any], precision: str) -> list[float]:
    """Losses of transformers' Trainer."""
    import tempfile

    from transformers import Trainer, TrainingArguments

    found: list[float] = []

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs.logits[:, :-1].float().transpose(1, 2)
        own = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
        mean = (own.sum(dim=1) / (labels[:, 1:] != -100).sum(dim=1)).mean()
        found.append(float(mean.detach()))
        return mean

    data = [
        {
            "input_ids": row.ids,
            "labels": [token if scored else -100 for token, scored in zip(row.ids, row.scored, strict=True)],
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=8, num_train_epochs=1, learning_rate=2e-6,
            lr_scheduler_type="constant", bf16=precision == "bf16", train_sampling_strategy="sequential",
            logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=setting.small,
            dataloader_pin_memory=not setting.small,
        )  # fmt: skip
        model = subjects.olmo(setting, "1B", torch.float32)
        Trainer(model, arguments, tuning.collated, data, compute_loss_func=loss).train()
    return found


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    **{f"log-probabilities {name}": functools.partial(log_probabilities, precision=name) for name in DTYPES},
    **{f"greedy {name}": functools.partial(greedy, precision=name) for name in DTYPES},
    "flips bf16": flips,
    **{f"losses {name}": functools.partial(losses, precision=name) for name in DTYPES},
}
