"""Gradients that are the same bit for bit in every run: on a GPU, kernels that sum in a fixed order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, torch uses deterministic kernels or raises RuntimeError (see `is_lacking`); on a CPU all kernels used here are.

    Otherwise the backward passes of flash and fp32 attention, and sums by index, are not deterministic.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Hopper's default, which torch requires to be set
    mode, memory = torch.get_deterministic_debug_mode(), vars(torch.utils)["deterministic"]
    filled = memory.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("error")
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = filled


def is_lacking(error: RuntimeError) -> bool:
    """Return whether an error says that torch has no deterministic kernel for an operation."""
    return "deterministic" in str(error)
