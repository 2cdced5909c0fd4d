"""Pre-training: OLMo-1B's steps in bf16, and the default study's model, which a CPU trains otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu import measuring, subjects
from benchmarks.gpu.subjects import Setting
from workflow.training import pretraining


def _steps(setting: Setting, model: Any, rows: int, length: int, dtype: torch.dtype) -> dict[str, Any]:
    """Optimizer steps on batches of random tokens, all of them scored."""
    groups = pretraining.weight_groups(model, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=pretraining.BETAS)
    ids = torch.randint(2, 1500, (rows, length))
    batch = pretraining.Batch(ids, ids)
    steps = setting.number(6, 1)

    def run() -> list[float]:
        return [pretraining.update(model, optimizer, batch, 1e-4, 1.0, dtype) for _ in range(steps)]

    run()
    time, _ = measuring.seconds(run, setting)
    tokens = rows * length * steps
    return {
        "tokens/s": round(tokens / time), "% of peak": measuring.of_peak(measuring.operations(model, tokens, tokens, 6), time),
        "ms a step": round(1000 * time / steps, 1), "GB": measuring.peak(setting),
    }  # fmt: skip


def olmo_1b(setting: Setting) -> dict[str, Any]:
    """Eight rows of 2,048 tokens."""
    model = subjects.olmo(setting, "1B", torch.float32).train()
    measuring.forget_peak(setting)
    return _steps(setting, model, setting.number(8, 2), setting.number(2048, 32), torch.bfloat16)


def small(setting: Setting) -> dict[str, Any]:
    """The default study's own recipe, in fp32."""
    import yaml

    from benchmarks.gpu.running import ROOT

    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    recipe = next(family["pretraining"] for family in config["families"].values() if "pretraining" in family)
    shape = {"heads": recipe.get("heads", 4), **recipe}
    words = subjects.tokenizer()
    model = pretraining.initial({"context": 256, "seed": 0, **shape}, words).to(setting.device).train()
    return _steps(setting, model, shape.get("batch", 8), shape.get("sequence", 128), torch.float32)


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {"OLMo-1B step": olmo_1b, "default study's model": small}
