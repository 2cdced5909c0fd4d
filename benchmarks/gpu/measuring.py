"""Time, operations and memory of something that runs on a GPU, or on a CPU that stands in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.gpu import subjects
from benchmarks.gpu.subjects import Setting
from workflow.planning import resources


def seconds(run: Callable[[], Any], setting: Setting) -> tuple[float, Any]:
    """Wall time of a run, until the GPU is done with it, and what it gives."""
    _wait(setting)
    start = time.perf_counter()
    found = run()
    _wait(setting)
    return time.perf_counter() - start, found


def median(run: Callable[[], Any], setting: Setting, rounds: int = 3) -> tuple[float, Any]:
    """Median wall time of several runs after one that is not counted, and what the last gave."""
    run()
    taken = [seconds(run, setting) for _ in range(setting.number(rounds, 1))]
    return subjects.spread([own for own, _ in taken]), taken[-1][1]


def _wait(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def operations(model: Any, tokens: float, read: float, each: int) -> float:
    """Operations of so many tokens of which so many are read, `each` for a parameter: 2 forward, 6 with the backward pass.

    The vocabulary counts where it is read alone, attention to other tokens not at all.
    """
    own, head = subjects.body(model)
    return each * (own * tokens + head * read)


def of_peak(done: float, taken: float) -> float:
    """Operations in some seconds as a percentage of a Hopper GPU's peak in bf16."""
    return round(100 * done / taken / subjects.PEAK, 1)


def forget_peak(setting: Setting) -> None:
    """Count the most memory from now on."""
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(setting: Setting) -> float | None:
    """The most memory in GB that this process has held, with the driver's own; None on a CPU."""
    if setting.device == "cpu":
        return None
    free, total = torch.cuda.mem_get_info()
    own = total - free - torch.cuda.memory_reserved()
    return round((torch.cuda.max_memory_reserved() + own) / 1e9, 2)


def reckoned(stage: str, setting: Setting, shape: str, block: Mapping[str, Any]) -> float:
    """GB of a GPU that `resources` reckons for a recipe or a suite and a model of that shape."""
    family = {"source": "trained", "pretraining": subjects.block(setting, shape)}
    study = {"families": {"f": family}, "recipes": {"r": block}, "suites": {"s": block}}
    keys = SimpleNamespace(family="f", recipe="r", suite="s", train="mnli", tests="all")
    needs = getattr(resources, stage)(study, keys, SimpleNamespace(base=""))
    return round(needs["gpu_mem_mb"] / 1e3, 2)
