"""Rotary positions whose frequencies follow the length of what is fed: `dynamic` and `longrope` of transformers.

They take the longest row of a forward pass for the length of all its rows, so that rows which are fed together change each
other; a row's own numbers are those that it has alone. `dynamic` keeps the frequencies of the longest row so far as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = "original_inv_freq"


def stretches(model: PreTrainedModel) -> bool:
    """Whether the frequencies of a model's positions follow the longest row that is fed."""
    return any(_grows(kind) or kind == "longrope" for module in model.modules() for kind in _kinds(module))


def forget(model: PreTrainedModel) -> None:
    """Have `dynamic` positions follow each forward pass alone from now on, whatever was fed before it."""
    for module in model.modules():
        if any(map(_grows, _kinds(module))):
            module.register_forward_pre_hook(_begin_anew)


def _kinds(module: torch.nn.Module) -> list[str]:
    """What a module of rotary positions says of them, of each kind of layer; nothing of other modules."""
    found = getattr(module, "rope_type", None)
    return list(found.values()) if isinstance(found, Mapping) else [found] if isinstance(found, str) else []


def _grows(kind: str) -> bool:
    """Whether frequencies are kept from one forward pass to the next, by transformers' own rule."""
    return "dynamic" in kind


def _begin_anew(module: torch.nn.Module, _: object) -> None:
    """Give a module the frequencies and the length that it was made with."""
    for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith(KEPT)]:
        kind = name.removesuffix(KEPT)
        module.register_buffer(f"{kind}inv_freq", getattr(module, name), persistent=False)
        setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)
