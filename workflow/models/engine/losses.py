"""Loss of single tokens under a model: what indicators are made of."""

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
    """Token ids, the first place (from 1) whose loss is read, and how many tokens in front see each other both ways."""

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
    """Of each reading the cross-entropy, in nats, of every token from its start on given all before it.

    Rows are padded on the left, so that only the columns that are read go through the vocabulary; of architectures that
    do not look past padding each is fed by itself.
    Errors: NotFiniteError with the place of a reading whose losses are not finite.
    """
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(readings)
    done = 0
    bears = feeding.bears_padding(model, pad)
    limit = batch_tokens if bears else 0
    for batch in batches([len(reading.ids) for reading in readings], limit):
        rows = [readings[place] for place in batch]
        for place, losses in zip(batch, _batch_losses(model, rows, pad, bears), strict=True):
            if not np.isfinite(losses).all():
                raise finite.NotFiniteError(place)
            found[place] = losses
        done += len(batch)
        if progress:
            progress(done, len(readings))
    return found


def _batch_losses(
    model: PreTrainedModel, rows: Sequence[Reading], pad: int, positions: bool
) -> list[NDArray[np.float64]]:
    """The losses of rows that are fed together; positions: whether they are given, else the model counts by itself."""
    depth = max(len(row.ids) - row.start for row in rows)
    fed = left_padded([row.ids for row in rows], pad, model.device)
    if not positions:
        fed = {"input_ids": fed["input_ids"]}
    if any(row.prefix for row in rows):
        fed["attention_mask"] = prefix_mask(rows, model.dtype).to(model.device)
    # Some give all columns, whatever they are asked for.
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, -depth - 1 : -1]
    targets = fed["input_ids"][:, -depth:]
    found = []
    for line, row in enumerate(rows):
        # One row after the other: a copy of all logits in fp32 would be the largest tensor of the whole job.
        own = len(row.ids) - row.start
        losses = torch.nn.functional.cross_entropy(
            logits[line, depth - own :].float(), targets[line, depth - own :], reduction="none"
        )
        found.append(losses.double().cpu().numpy())
    return found


def prefix_mask(rows: Sequence[Reading], dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, shape (rows, 1, longest, longest), of rows that are padded on the left.

    A token sees those before it and itself; the tokens of a row's prefix see each other. Nothing sees padding.
    """
    longest = max(len(row.ids) for row in rows)
    places = torch.arange(longest)
    mask = torch.empty(len(rows), 1, longest, longest, dtype=dtype)
    for line, row in enumerate(rows):
        first = longest - len(row.ids)
        inside = places < first + row.prefix
        seen = (places[:, None] >= places[None]) | (inside[:, None] & inside[None])
        seen &= places[None] >= first
        # The least number, not minus infinity: a row of padding sees nothing, and its softmax must not divide by zero.
        mask[line, 0] = torch.where(seen, 0.0, torch.finfo(dtype).min)
    return mask


def fingerprint(sequences: Iterable[Sequence[int]]) -> str:
    """Hash of token ids: the same where two tokenizers cut the same texts into the same ids."""
    found = hashlib.sha256()
    for sequence in sequences:
        found.update(np.asarray([len(sequence), *sequence], dtype="<i8").tobytes())
    return found.hexdigest()[:16]
