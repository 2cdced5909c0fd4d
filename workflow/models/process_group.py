"""The processes that a model is spread over, as seen from one of them; a process alone is the first of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

Row = TypeVar("Row")


def place() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a value over all processes."""
    if place()[1] > 1:
        distributed.all_reduce(value)
    return value


def anywhere(said: bool, device: torch.device) -> bool:
    """Whether something is so in one of the processes."""
    return bool(total(torch.tensor(float(said), device=device))) if place()[1] > 1 else said


def share(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows that are this process's part of all."""
    rank, number = place()
    return rows[rank::number]


def joined(own: list[Any]) -> list[Any]:
    """What all processes made of their shares, in the order of all rows; all processes must ask for it."""
    number = place()[1]
    if number == 1:
        return own
    parts: list[list[Any]] = [[] for _ in range(number)]
    distributed.all_gather_object(parts, own)
    return [parts[row % number][row // number] for row in range(sum(map(len, parts)))]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may hold a shard, put together; all processes must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor in the shards and on the device of another."""
    tensor = tensor.to(like.device)
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)
