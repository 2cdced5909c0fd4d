"""The CPU of this machine: its name, and whether it has units for bf16."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BF16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"}  # flags of x86, features of ARM


@functools.cache
def facts() -> dict[str, str]:
    """What the kernel tells about the first core, such as `model name` and `flags`; empty where it tells nothing."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    lines = (line.partition(":") for line in first if ":" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


def flags() -> set[str]:
    """Instructions that the CPU has."""
    return set((facts().get("flags") or facts().get("Features") or "").split())


def name() -> str:
    """The model of the CPU; its architecture where the kernel does not tell."""
    return facts().get("model name") or platform.machine()


def computes_bf16() -> bool | None:
    """Whether the CPU has units for bf16; None where the kernel does not tell."""
    known = flags()
    return bool(known & BF16) if known else None
