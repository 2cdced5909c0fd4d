"""Operations across the processes that share a model; a single process is the first of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


def rank_and_size() -> tuple[int, int]:
    """Return the rank of this process, from 0, and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def summed(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a value over all processes."""
    if rank_and_size()[1] > 1:
        distributed.all_reduce(value)
    return value


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any of the processes."""
    return bool(summed(torch.tensor(float(flag), device=device))) if rank_and_size()[1] > 1 else flag


def share(rows: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share of the rows."""
    rank, number = rank_and_size()
    return rows[rank::number]


def gathered(part: list[Any]) -> list[Any]:
    """Return the results of all processes for their shares, in the order of all rows; all processes must call it."""
    number = rank_and_size()[1]
    if number == 1:
        return part
    parts: list[list[Any]] = [[] for _ in range(number)]
    distributed.all_gather_object(parts, part)
    return [parts[row % number][row // number] for row in range(sum(map(len, parts)))]


def unsharded(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor put together from its shards, if it has any; all processes must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a full tensor on the device of another and sharded like it."""
    tensor = tensor.to(like.device)
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements)
