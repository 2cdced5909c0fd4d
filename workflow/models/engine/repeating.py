"""Gradients that come out the same to the bit each time: on a GPU, kernels that add up in a fixed order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, torch takes repeatable kernels or raises RuntimeError (see `is_lacking`); on a CPU all that run here are.

    Flash attention's backward pass, that of fp32 attention, and sums by index are not repeatable otherwise.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Hopper's default, which torch wants to see stated
    mode, filled = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def is_lacking(error: RuntimeError) -> bool:
    """Whether torch has no repeatable kernel for something."""
    return "deterministic" in str(error)
