"""Scoring labels: prompts and tokens a second, share of the peak, memory; beside lm-evaluation-harness's `hf`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu import measuring, subjects
from benchmarks.gpu.subjects import Setting
from workflow.data import prompts as templates

BATCHES = (8, 32, 128)


def ours(setting: Setting, shots: int) -> dict[str, Any]:
    """From texts to predictions, as a study makes them."""
    words, rows = subjects.tokenizer(), setting.number(4000, 12)
    model = subjects.olmo(setting, "1B", torch.bfloat16)
    measuring.forget_peak(setting)
    time, _ = measuring.median(lambda: subjects.evaluated(model, words, "mnli", rows, shots), setting)
    texts = subjects.prompts(words, "mnli", min(rows, 200), shots, subjects.CONTEXT - 8)
    length = sum(map(len, words(texts)["input_ids"])) / len(texts)
    # What every row would read by itself; demonstrations are read once.
    alone = measuring.operations(model, length * rows, 3 * rows, 2)
    return {
        "prompts/s": round(rows / time, 1), "prompt tokens": round(length),
        "prompt tokens/s": round(length * rows / time), "% of peak, nothing shared": measuring.of_peak(alone, time),
        "rows": rows, "GB": measuring.peak(setting),
        "GB reckoned": measuring.reckoned("prediction", setting, "1B", subjects.suite(["mnli"], "bf16")),
    }  # fmt: skip


def harness(setting: Setting, shots: int) -> dict[str, Any]:
    """The same prompts and labels by lm-evaluation-harness, one request a label, at the best of some batch sizes."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    words = subjects.tokenizer()
    model = subjects.olmo(setting, "1B", torch.bfloat16)
    speeds: dict[int, float] = {}
    for batch in BATCHES[: setting.number(3, 1)]:
        rows = setting.number(600 if batch > 8 else 200, 6)
        texts = subjects.prompts(words, "mnli", rows, shots, subjects.CONTEXT - 8)
        asked = [
            Instance(request_type="loglikelihood", doc={}, arguments=(text, templates.completion(label)), idx=number)
            for number, text in enumerate(texts)
            for label in subjects.LABELS
        ]
        wrapper = HFLM(pretrained=model, tokenizer=words, batch_size=batch, device=setting.device)
        wrapper.loglikelihood(asked[:30], disable_tqdm=True)
        time, _ = measuring.seconds(
            lambda asked=asked, own=wrapper: own.loglikelihood(asked, disable_tqdm=True), setting
        )
        speeds[batch] = rows / time
    best = max(speeds, key=speeds.__getitem__)
    each = {f"at {batch}": round(own, 1) for batch, own in speeds.items()}
    return {"prompts/s": round(speeds[best], 1), "best batch": best, **each}


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "0-shot": functools.partial(ours, shots=0),
    "4-shot": functools.partial(ours, shots=4),
    "lm-eval 0-shot": functools.partial(harness, shots=0),
    "lm-eval 4-shot": functools.partial(harness, shots=4),
}
