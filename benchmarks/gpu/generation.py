"""Greedy text: tokens a second, memory; beside transformers' `generate` at batch 32, as it comes and compiled."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu import measuring, subjects
from benchmarks.gpu.subjects import Setting
from workflow.models.engine import generation

NEW, BATCH = 60, 32
TESTS = {"0-shot, XSum": ("xsum", 0), "0-shot, short": ("social_iqa", 0), "4-shot, short": ("social_iqa", 4)}


def contexts(setting: Setting, test: str, words: Any, rows: int) -> list[list[int]]:
    """The prompts of a test as token ids."""
    name, shots = TESTS[test]
    texts = subjects.prompts(words, name, rows, shots, setting.number(subjects.CONTEXT, 400) - NEW)
    return words(texts)["input_ids"]


def unending(words: Any) -> Any:
    """The tokenizer with an end that no text reaches, as that of random weights would hang on luck."""
    found = copy.deepcopy(words)
    found.eos_token = found.convert_ids_to_tokens(len(found) - 1)
    return found


def ours(setting: Setting, test: str) -> dict[str, Any]:
    """As many rows as several rounds of slots."""
    words = subjects.tokenizer()
    model = subjects.olmo(setting, "1B", torch.bfloat16)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    fed = contexts(setting, test, words, setting.number(768, 6))
    measuring.forget_peak(setting)
    new = setting.number(NEW, 4)
    time, made = measuring.median(
        lambda: generation.greedy(model, unending(words), fed, new, (), 8192), setting, rounds=2
    )
    written = sum(map(len, made))
    return {
        "tokens/s": round(written / time), "rows/s": round(len(fed) / time, 1), "rows": len(fed),
        "mean length": round(written / len(fed), 1), "prompt tokens": round(sum(map(len, fed)) / len(fed)),
        "GB": measuring.peak(setting),
        "GB reckoned": measuring.reckoned("prediction", setting, "1B", subjects.suite([TESTS[test][0]], "bf16")),
    }  # fmt: skip


def peer(setting: Setting, test: str, compiled: bool) -> dict[str, Any]:
    """`generate` in batches of 32 by length; compiled: with a static cache and the forward pass compiled for it."""
    if compiled and not setting.small and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        raise RuntimeError("torch.compile needs a C compiler; found none of cc, gcc, clang")
    words = subjects.tokenizer()
    model = subjects.olmo(setting, "1B", torch.bfloat16)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    batch = setting.number(BATCH, 2)
    fed = sorted(contexts(setting, test, words, batch * (2 if compiled else 4)), key=len)
    # A static cache is compiled for one length: all prompts are padded to the longest.
    batches = [fed[start : start + batch] for start in range(0, len(fed), batch)]
    longest = max(map(len, fed)) if compiled else 0
    time, made = measuring.median(
        lambda: [_generated(setting, model, own, longest, compiled) for own in batches], setting, rounds=2
    )
    return {"tokens/s": round(sum(made) / time), "rows/s": round(len(fed) / time, 1), "rows": len(fed),
            "GB": measuring.peak(setting)}  # fmt: skip


@torch.inference_mode()
def _generated(setting: Setting, model: Any, fed: Sequence[list[int]], longest: int, compiled: bool) -> int:
    """Tokens that a batch writes."""
    longest = longest or max(map(len, fed))
    ids = torch.tensor([[1] * (longest - len(row)) + row for row in fed], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in fed], device=model.device)
    new = setting.number(NEW, 4)
    static = {"cache_implementation": "static", "disable_compile": setting.small} if compiled else {}
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=1,
        **static,
    )
    return (made.shape[1] - longest) * len(fed)


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    **{test: functools.partial(ours, test=test) for test in TESTS},
    **{f"generate {test}": functools.partial(peer, test=test, compiled=False) for test in TESTS},
    **{f"compiled {test}": functools.partial(peer, test=test, compiled=True) for test in TESTS},
}
