"""Rotary positions whose frequencies depend on the input's length: `dynamic` and `longrope` of transformers.

They use the longest row of a forward pass as the length of all its rows, so rows in one batch influence each other; a row's
correct values are those that it has alone. `dynamic` also keeps the frequencies of the longest row so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = "original_inv_freq"


def stretches(model: PreTrainedModel) -> bool:
    """Return whether the frequencies of a model's positions depend on the longest row of the input."""
    return any(_grows(kind) or kind == "longrope" for module in model.modules() for kind in _kinds(module))


def forget(model: PreTrainedModel) -> None:
    """Make `dynamic` positions depend on the current forward pass only, not on earlier ones."""
    for module in model.modules():
        if any(map(_grows, _kinds(module))):
            module.register_forward_pre_hook(_begin_anew)


def _kinds(module: torch.nn.Module) -> list[str]:
    """Return the types of a module's rotary positions, one for each kind of layer; empty for other modules."""
    kinds = getattr(module, "rope_type", None)
    return list(kinds.values()) if isinstance(kinds, Mapping) else [kinds] if isinstance(kinds, str) else []


def _grows(kind: str) -> bool:
    """Return whether frequencies are kept from one forward pass to the next, by transformers' rule."""
    return "dynamic" in kind


def _begin_anew(module: torch.nn.Module, _: object) -> None:
    """Reset a module's frequencies and length to their original values."""
    for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith(KEPT)]:
        kind = name.removesuffix(KEPT)
        module.register_buffer(f"{kind}inv_freq", getattr(module, name), persistent=False)
        setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)
