"""Losses of single tokens, from which indicators are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from workflow.models.encoding import batches, left_padded
from workflow.models.engine import feeding, finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int], None]


class Reading(NamedTuple):
    """Token ids, the first position (from 1) whose loss is needed, and the length of a prefix with bidirectional attention."""

    ids: Sequence[int]
    start: int = 1
    prefix: int = 0


@torch.inference_mode()
def token_losses(
    model: PreTrainedModel,
    readings: Sequence[Reading],
    pad: int,
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """Return for each reading the cross-entropy, in nats, of every token from its start on, given all tokens before it.

    Rows are padded on the left, so that logits are computed only for the columns needed; architectures that do not ignore
    padding run one row at a time.
    Errors: NotFiniteError with the index of a reading whose losses are not finite.
    """
    results: list[NDArray[np.float64]] = [np.empty(0)] * len(readings)
    done = 0
    pads = feeding.ignores_padding(model, pad)
    limit = batch_tokens if pads else 0
    for batch in batches([len(reading.ids) for reading in readings], limit):
        rows = [readings[position] for position in batch]
        for position, losses in zip(batch, _batch_losses(model, rows, pad, pads), strict=True):
            if not np.isfinite(losses).all():
                raise finite.NotFiniteError(position)
            results[position] = losses
        done += len(batch)
        if progress:
            progress(done, len(readings))
    return results


def _batch_losses(
    model: PreTrainedModel, rows: Sequence[Reading], pad: int, positions: bool
) -> list[NDArray[np.float64]]:
    """Return the losses of one batch; positions: whether they are given to the model, which otherwise counts them itself."""
    depth = max(len(row.ids) - row.start for row in rows)
    fed = left_padded([row.ids for row in rows], pad, model.device)
    if not positions:
        fed = {"input_ids": fed["input_ids"]}
    if any(row.prefix for row in rows):
        fed["attention_mask"] = prefix_mask(rows, model.dtype).to(model.device)
    # Some models return all columns, whatever `logits_to_keep` says.
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, -depth - 1 : -1]
    targets = fed["input_ids"][:, -depth:]
    results = []
    for line, row in enumerate(rows):
        # Row by row, since a copy of all logits in fp32 would be the largest tensor of the job.
        count = len(row.ids) - row.start
        losses = torch.nn.functional.cross_entropy(
            logits[line, depth - count :].float(), targets[line, depth - count :], reduction="none"
        )
        results.append(losses.double().cpu().numpy())
    return results


def prefix_mask(rows: Sequence[Reading], dtype: torch.dtype) -> torch.Tensor:
    """Return an additive attention mask, shape (rows, 1, longest, longest), for rows padded on the left.

    A token sees itself and those before it; the tokens of a row's prefix see each other. No token sees padding.
    """
    longest = max(len(row.ids) for row in rows)
    places = torch.arange(longest)
    mask = torch.empty(len(rows), 1, longest, longest, dtype=dtype)
    for line, row in enumerate(rows):
        first = longest - len(row.ids)
        inside = places < first + row.prefix
        seen = (places[:, None] >= places[None]) | (inside[:, None] & inside[None])
        seen &= places[None] >= first
        # The least number, not minus infinity: a padding token sees nothing, and its softmax must not divide by zero.
        mask[line, 0] = torch.where(seen, 0.0, torch.finfo(dtype).min)
    return mask


def fingerprint(sequences: Iterable[Sequence[int]]) -> str:
    """Return a hash of token ids, the same if two tokenizers turn the same texts into the same ids."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(np.asarray([len(sequence), *sequence], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]
