"""Flash attention over rows of different lengths that stand one after the other (Dao 2023, arXiv 2307.08691).

The operation is torch's own, called as it is rather than through `torch.nn.attention.varlen`, whose arguments differ from
version to version: torch 2.11 has neither shared heads nor rows that are partly filled. Gradients flow. Before its first
use on a device the kernel is compared with plain operations; where it fails or disagrees, plain operations do its work.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

CAUSAL, ALL = (-1, 0), (-1, -1)  # windows: keys to the left and to the right of a query's own place, -1 without limit
NEAR = 0.05  # largest difference to fp64 where values have variance 1; bf16 rounds to .004 of a number


class Rows(NamedTuple):
    """Where rows of queries and of keys begin and the last one ends, int32 of shape (rows + 1), and the longest of each."""

    asked: torch.Tensor
    seen: torch.Tensor
    longest: tuple[int, int]


def takes(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel takes tensors like these: half precision on a GPU of compute capability 8 or more."""
    size = query.shape[2]
    half = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.is_cuda and half and size == value.shape[2] <= 256 and size % 8 == 0
    return fits and works(query.device, query.dtype, query.shape[1] != value.shape[1])


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    scale: float | None = None,
    window: tuple[int, int] = CAUSAL,
    held: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of each row's queries to its own keys: output and the log-sum of scores, fp32 of shape (tokens, heads).

    query, key, value: (tokens, heads, head size), of key and value with as many heads or a divisor of them. Where a row
    has fewer queries than keys these are its last places. held: keys of each row that count, from its first, int32 of
    shape (rows); not for training. The log-sums carry no gradient.
    """
    found, sums = kernel(query.contiguous(), key.contiguous(), value.contiguous(), rows, scale, window, held)
    return found, sums.transpose(0, 1)


def kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    scale: float | None,
    window: tuple[int, int],
    held: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Torch's operation: output (tokens, heads, head size), log-sums (heads, tokens)."""
    found, sums, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, rows.asked, rows.seen, *rows.longest, 0.0, window == CAUSAL, False,
        scale=scale, window_size_left=window[0], window_size_right=window[1], seqused_k=held,
    )  # fmt: skip
    return found, sums


# Whether the kernel does what it should


@functools.cache
def works(device: torch.device, dtype: torch.dtype, grouped: bool) -> bool:
    """Whether the kernel is there and agrees with plain operations; says in the log where it does not.

    grouped: of models whose queries share heads of keys.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):  # there are no kernels for older GPUs
        return False
    try:
        found = worst(device, dtype, 2 if grouped else 4)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    else:
        if found <= NEAR:
            return True
        reason = f"its values are off by {found:.3f}, expected {NEAR} at most"
    logging.getLogger("tunecast").warning(
        "flash attention of torch %s is not used, which is slow: %s", torch.__version__, reason
    )
    return False


def worst(device: torch.device, dtype: torch.dtype, heads: int) -> float:
    """The largest difference between the kernel and plain operations in fp64, over all the ways in which it is called.

    heads: of keys and values; queries have four.
    """
    return max(_difference(*case) for case in _cases(device, dtype, heads))


Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Rows, tuple[int, int], torch.Tensor | None]


def _cases(device: torch.device, dtype: torch.dtype, heads: int) -> Iterator[Case]:
    """Packed rows, with a window, ends of rows, rows over others, and single queries over rows that are partly filled."""
    for window in (CAUSAL, (3, 0)):
        yield _case(device, dtype, heads, (5, 1, 33), (5, 1, 33), window)
    yield _case(device, dtype, heads, (2, 1, 20), (5, 1, 33), CAUSAL)
    yield _case(device, dtype, heads, (3, 0, 40), (7, 300, 1), ALL)
    yield _case(device, dtype, heads, (1, 1, 1), (400, 400, 400), ALL, (1, 400, 257))


def _case(
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    asked: Sequence[int],
    seen: Sequence[int],
    window: tuple[int, int],
    held: Sequence[int] | None = None,
) -> Case:
    """Random numbers for rows of these lengths; heads: of keys and values, queries have four."""
    generator = torch.Generator().manual_seed(heads)
    query, key, value = (
        torch.randn(sum(lengths), number, 64, generator=generator).to(device, dtype)
        for lengths, number in ((asked, 4), (seen, heads), (seen, heads))
    )
    bounds = [torch.tensor([0, *lengths], device=device).cumsum(0).int() for lengths in (asked, seen)]
    given = None if held is None else torch.tensor(held, device=device, dtype=torch.int32)
    return query, key, value, Rows(*bounds, (max(asked), max(seen))), window, given


def _difference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    window: tuple[int, int],
    held: torch.Tensor | None,
) -> float:
    found = attend(query, key, value, rows, None, window, held)
    gaps = [
        float((own.double() - expected).abs().max())
        for own, expected in zip(found, plain(query, key, value, rows, None, window, held), strict=True)
    ]
    return max(gap if math.isfinite(gap) else math.inf for gap in gaps)


def plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: Rows,
    scale: float | None = None,
    window: tuple[int, int] = CAUSAL,
    held: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `attend` in fp64, row by row: output and log-sums."""
    key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    asked, seen = rows.asked.tolist(), rows.seen.tolist()
    lengths = (rows.seen.diff() if held is None else held).tolist()
    parts = []
    for number, length in enumerate(lengths):
        own = query[asked[number] : asked[number + 1]].double().transpose(0, 1)
        keys, values = (
            tensor[seen[number] : seen[number] + length].double().transpose(0, 1) for tensor in (key, value)
        )
        scores = own @ keys.transpose(1, 2) * (query.shape[2] ** -0.5 if scale is None else scale)
        scores = scores.masked_fill(~_visible(own.shape[1], length, window, query.device), -torch.inf)
        parts.append(((scores.softmax(dim=2) @ values).transpose(0, 1), scores.logsumexp(dim=2).transpose(0, 1)))
    outputs, sums = zip(*parts, strict=True)
    return torch.cat(outputs), torch.cat(sums)


def _visible(asked: int, length: int, window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Which keys of a row each of its last queries sees, of shape (asked, length)."""
    places = torch.arange(length - asked, length, device=device)[:, None] - torch.arange(length, device=device)
    seen = torch.ones_like(places, dtype=torch.bool)
    for limit, distance in zip(window, (places, -places), strict=True):
        if limit >= 0:
            seen &= distance <= limit
    return seen
