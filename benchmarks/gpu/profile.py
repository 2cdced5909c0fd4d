"""Where a GPU's time goes: how much of it is idle, and what the rest is spent on."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu import generation, measuring, subjects
from benchmarks.gpu.subjects import Setting
from workflow.models.engine import feeding
from workflow.models.engine.generation import greedy
from workflow.training import finetuning

# Kinds of kernels by what their names hold, the first that fits.
KINDS = {
    "attention": r"flash|fmha|attention",
    "products": r"gemm|cutlass|nvjet|cublas|matmul",
    "optimizer": r"adam|multi_tensor|foreach|lpnorm",
    "copies": r"memcpy|memset",
    "softmax": r"softmax|nll_loss|cross_entropy|logsumexp",
    "other": r"",
}


def profiled(setting: Setting, run: Callable[[], Any]) -> dict[str, Any]:
    """Percentages of a run's wall time in which kernels of each kind ran; what is left is idle."""
    from torch.profiler import ProfilerActivity, profile

    run()
    kind = ProfilerActivity.CPU if setting.small else ProfilerActivity.CUDA
    taken, _ = measuring.seconds(run, setting)
    with profile(activities=[kind]) as seen:
        measuring.seconds(run, setting)
    spent = dict.fromkeys(KINDS, 0.0)
    launched = 0
    for event in seen.key_averages():
        time = event.self_cpu_time_total if setting.small else event.self_device_time_total
        name = next(name for name, words in KINDS.items() if re.search(words, event.key.lower()))
        spent[name] += time / 1e6
        launched += event.count
    found = {f"% {name}": round(100 * time / taken, 1) for name, time in spent.items()}
    return {"ms": round(1000 * taken, 1), **found, "% idle": round(100 * max(0.0, 1 - sum(spent.values()) / taken), 1),
            "kernels": launched}  # fmt: skip


def tuned(setting: Setting, rows: str) -> dict[str, Any]:
    """Two optimizer steps."""
    recipe = subjects.recipe("full", "bf16", subjects.CONTEXT)
    lessons = subjects.lesson_rows(rows, 16, setting.number(subjects.CONTEXT, 64))
    model = subjects.olmo(setting, "1B", torch.float32).train()
    optimizer = finetuning._optimizer(model, recipe)
    with feeding.losses(model, 1) as read:
        steps = finetuning.Steps(model, optimizer, read, recipe, 8)
        return profiled(setting, lambda: [steps.take(lessons[start : start + 8], 1e-6) for start in (0, 8)])


def scored(setting: Setting) -> dict[str, Any]:
    """A thousand prompts of MNLI."""
    model, words = subjects.olmo(setting, "1B", torch.bfloat16), subjects.tokenizer()
    return profiled(setting, lambda: subjects.evaluated(model, words, "mnli", setting.number(1000, 6), 0))


def written(setting: Setting) -> dict[str, Any]:
    """A round of slots of short prompts."""
    model, words = subjects.olmo(setting, "1B", torch.bfloat16), subjects.tokenizer()
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    fed = generation.contexts(setting, "0-shot, short", words, setting.number(256, 4))
    ending = generation.unending(words)
    return profiled(setting, lambda: greedy(model, ending, fed, setting.number(30, 3), (), 8192))


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "tuning, MNLI rows": functools.partial(tuned, rows="mnli"),
    "tuning, 2k tokens": functools.partial(tuned, rows="2k"),
    "scoring, 0-shot": scored,
    "generation, short": written,
}
