"""Flash attention over packed rows of different lengths (Dao 2023, arXiv 2307.08691).

Torch's operation is called directly and not through `torch.nn.attention.varlen`, whose arguments differ between versions:
in torch 2.11 it has neither shared heads nor partly filled rows. Gradients flow. Before its first use on a device the kernel
is compared with plain operations; if it fails or disagrees, plain operations are used instead.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

CAUSAL, ALL = (-1, 0), (-1, -1)  # windows: keys to the left and to the right of a query's position, -1 without limit
NEAR = 0.05  # largest allowed difference to fp64 for values of variance 1; bf16 rounds to .004 of a number


class RowBounds(NamedTuple):
    """Starts of the rows of queries and of keys and the end of the last, int32 of shape (rows + 1), and the longest of each."""

    asked: torch.Tensor
    seen: torch.Tensor
    longest: tuple[int, int]


def takes(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether the kernel accepts such tensors: half precision on a GPU of compute capability 8 or more."""
    size = query.shape[2]
    half = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.is_cuda and half and size == value.shape[2] <= 256 and size % 8 == 0
    return fits and works(query.device, query.dtype, query.shape[1] != value.shape[1])


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: RowBounds,
    scale: float | None = None,
    window: tuple[int, int] = CAUSAL,
    held: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of each row's queries to its keys: output and log-sum-exp of scores, fp32 of shape (tokens, heads).

    query, key, value: (tokens, heads, head size); key and value may have a divisor of the query's heads. If a row has fewer
    queries than keys, the queries are at its last positions. held: number of valid keys of each row, int32 of shape (rows);
    not for training. The log-sums carry no gradient.
    """
    output, sums = kernel(query.contiguous(), key.contiguous(), value.contiguous(), rows, scale, window, held)
    return output, sums.transpose(0, 1)


def kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: RowBounds,
    scale: float | None,
    window: tuple[int, int],
    held: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Call torch's operation: output (tokens, heads, head size), log-sums (heads, tokens)."""
    output, sums, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, rows.asked, rows.seen, *rows.longest, 0.0, window == CAUSAL, False,
        scale=scale, window_size_left=window[0], window_size_right=window[1], seqused_k=held,
    )  # fmt: skip
    return output, sums


# Check of the kernel


@functools.cache
def works(device: torch.device, dtype: torch.dtype, grouped: bool) -> bool:
    """Return whether the kernel exists and agrees with plain operations; log if not.

    grouped: whether queries share heads of keys.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):  # there are no kernels for older GPUs
        return False
    try:
        difference = worst(device, dtype, 2 if grouped else 4)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    else:
        if difference <= NEAR:
            return True
        reason = f"its values are off by {difference:.3f}, expected {NEAR} at most"
    logging.getLogger("tunecast").warning(
        "flash attention of torch %s is not used, which is slow: %s", torch.__version__, reason
    )
    return False


def worst(device: torch.device, dtype: torch.dtype, heads: int) -> float:
    """Return the largest difference between the kernel and plain operations in fp64, over all ways of calling it.

    heads: of keys and values; queries have four.
    """
    return max(_difference(*case) for case in _cases(device, dtype, heads))


Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, RowBounds, tuple[int, int], torch.Tensor | None]


def _cases(device: torch.device, dtype: torch.dtype, heads: int) -> Iterator[Case]:
    """Yield packed rows, with and without a window, ends of rows, rows over others, single queries over partly filled rows."""
    for window in (CAUSAL, (3, 0)):
        yield _case(device, dtype, heads, (5, 1, 33), (5, 1, 33), window)
    yield _case(device, dtype, heads, (2, 1, 20), (5, 1, 33), CAUSAL)
    yield _case(device, dtype, heads, (3, 0, 40), (7, 300, 1), ALL)
    yield _case(device, dtype, heads, (1, 1, 1), (400, 400, 400), ALL, (1, 400, 257))


def _case(
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    queries: Sequence[int],
    keys: Sequence[int],
    window: tuple[int, int],
    held: Sequence[int] | None = None,
) -> Case:
    """Return random numbers for rows of these lengths; heads: of keys and values, queries have four."""
    generator = torch.Generator().manual_seed(heads)
    query, key, value = (
        torch.randn(sum(lengths), number, 64, generator=generator).to(device, dtype)
        for lengths, number in ((queries, 4), (keys, heads), (keys, heads))
    )
    bounds = [torch.tensor([0, *lengths], device=device).cumsum(0).int() for lengths in (queries, keys)]
    key_counts = None if held is None else torch.tensor(held, device=device, dtype=torch.int32)
    return query, key, value, RowBounds(bounds[0], bounds[1], (max(queries), max(keys))), window, key_counts


def _difference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: RowBounds,
    window: tuple[int, int],
    held: torch.Tensor | None,
) -> float:
    actual = attend(query, key, value, rows, None, window, held)
    gaps = [
        float((part.double() - expected).abs().max())
        for part, expected in zip(actual, plain(query, key, value, rows, None, window, held), strict=True)
    ]
    return max(gap if math.isfinite(gap) else math.inf for gap in gaps)


def plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: RowBounds,
    scale: float | None = None,
    window: tuple[int, int] = CAUSAL,
    held: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same as `attend` in fp64, row by row: output and log-sums."""
    key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    asked, seen = rows.asked.tolist(), rows.seen.tolist()
    lengths = (rows.seen.diff() if held is None else held).tolist()
    parts = []
    for number, length in enumerate(lengths):
        queries = query[asked[number] : asked[number + 1]].double().transpose(0, 1)
        keys, values = (
            tensor[seen[number] : seen[number] + length].double().transpose(0, 1) for tensor in (key, value)
        )
        scores = queries @ keys.transpose(1, 2) * (query.shape[2] ** -0.5 if scale is None else scale)
        scores = scores.masked_fill(~_visible(queries.shape[1], length, window, query.device), -torch.inf)
        parts.append(((scores.softmax(dim=2) @ values).transpose(0, 1), scores.logsumexp(dim=2).transpose(0, 1)))
    outputs, sums = zip(*parts, strict=True)
    return torch.cat(outputs), torch.cat(sums)


def _visible(queries: int, length: int, window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return which keys of a row each of its last queries sees: shape (queries, length)."""
    places = torch.arange(length - queries, length, device=device)[:, None] - torch.arange(length, device=device)
    seen = torch.ones_like(places, dtype=torch.bool)
    for limit, distance in zip(window, (places, -places), strict=True):
        if limit >= 0:
            seen &= distance <= limit
    return seen
