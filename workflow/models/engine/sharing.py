"""Attention to keys that several rows share: a prefix read once, a context with branches, slots of generated rows.

The keys that a token sees are in different tensors: those of its row in the pack, those of its context before the branches,
those of the shared prefix in a store. Attention over each tensor gives an output and the log-sum-exp of its scores. Weighted
by these, the outputs add up to attention over all keys (as flash attention does from block to block: Dao et al. 2022,
section 3.1). Nothing is copied for each row, nothing is padded. For inference only: no gradients, no dropout. Layers with
soft caps, sinks, or windows shorter than the texts cannot share keys (`shareable`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from workflow.models.engine import flash
from workflow.models.engine.attention import (
    AttentionSettings,
    Packing,
    _for_each_head,
    _visible,
    block,
    bounds,
    runs,
    to_device,
)

PartialAttention = tuple[
    torch.Tensor, torch.Tensor
]  # output (tokens, heads, size), log-sum-exp of scores (tokens, heads)
QUERIES = 1024  # per call of plain operations


def shareable(layers: Sequence[AttentionSettings], longest: int) -> bool:
    """Return whether layers with these settings can share keys, in texts of at most `longest` tokens."""
    return all(
        settings.layer >= 0
        and settings.softcap is None
        and settings.sinks is None
        and (settings.window is None or settings.window >= longest)
        for settings in layers
    ) and len({settings.layer for settings in layers}) == len(layers)


@dataclass(frozen=True)
class Keys:
    """Keys and values of tokens that were already read: layer -> (keys, values) of shape (tokens, heads, size)."""

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(next(iter(self.layers.values()))[0])


@dataclass(frozen=True)
class Fans:
    """Contexts and the branches that continue them: tokens of each context, and of all branches of each context.

    The bounds are the start of each and the end of the last, counted from the first. seen: keys of the contexts, if they
    were read before.
    """

    contexts: tuple[int, ...]
    branches: tuple[int, ...]
    context_bounds: torch.Tensor
    branch_bounds: torch.Tensor
    seen: Keys | None = None


class PrefixPacking(Packing):
    """A packing whose rows may all continue a prefix."""

    prefix: Keys | None

    @functools.cached_property
    def _over_prefix(self) -> flash.RowBounds:
        """Bounds of all tokens over the prefix, as one row; the same in every layer."""
        lengths = sum(self.lengths), self.prefix.tokens if self.prefix is not None else 0
        queries, seen = (bounds([length], self.bounds.device) for length in lengths)
        return flash.RowBounds(queries, seen, lengths)

    def _with_prefix(
        self, attended: PartialAttention, query: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Return the output of attention over a row's keys and over the prefix, if there is one."""
        if self.prefix is not None:
            _merge(attended, over_keys(query, *self.prefix.layers[settings.layer], settings, self._over_prefix))
        return attended[0]


@dataclass(frozen=True)
class BranchedPacking(PrefixPacking):
    """Contexts with branches (unless read before), then rows without, then the branches: `lengths` of all in this order.

    fans: which branches belong to which context; prefix: keys that all see; kept: receives this pack's keys.
    """

    fans: Fans | None = None
    prefix: Keys | None = None
    kept: Keys | None = None

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Return attention: each token sees its row so far, a branch also its context, all of them the prefix."""
        if self.kept is not None:
            self.kept.layers[settings.layer] = (key.clone(), value.clone())
        if self.fans is None and self.prefix is None:
            return super().attend(query, key, value, settings)
        attended = over_rows(query, key, value, self.lengths, self.bounds, settings)
        if self.fans is not None:
            queries, seen = sum(self.fans.branches), sum(self.fans.contexts)
            known = self.fans.seen.layers[settings.layer] if self.fans.seen else (key[:seen], value[:seen])
            branches = attended[0][len(query) - queries :], attended[1][len(query) - queries :]
            _merge(branches, _over_contexts(query[len(query) - queries :], *known, self.fans, settings))
        return self._with_prefix(attended, query, settings)


def _over_contexts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, fans: Fans, settings: AttentionSettings
) -> PartialAttention:
    """Return attention of branches over their contexts, neighbours of equal lengths together."""
    if flash.takes(query, value):
        longest = max(fans.branches), max(fans.contexts)
        bounds_of = flash.RowBounds(fans.branch_bounds, fans.context_bounds, longest)
        return flash.attend(query, key, value, bounds_of, settings.scale, flash.ALL)
    parts, query_start, key_start = [], 0, 0
    for (fan, length), group in itertools.groupby(zip(fans.branches, fans.contexts, strict=True)):
        rows = sum(1 for _ in group)
        keys, values = (block(tensor, key_start, rows, length) for tensor in (key, value))
        if fan:
            parts.append(_flat(with_log_sums(block(query, query_start, rows, fan), keys, values, settings)))
        query_start, key_start = query_start + rows * fan, key_start + rows * length
    return _joined(parts)


@dataclass(frozen=True)
class SlotPacking(PrefixPacking):
    """A generation step: one token for each slot in use, then whole rows for the next slots.

    slots: layer, this step's keys and values -> the layer's keys and values of shape (slots, room, heads, size), to which
    this step's are written; lengths: 1 for each slot in use, then those of the new rows; filled: tokens in each slot before
    this step; places: index in all slots of each token of this step; prefix: keys that all see; held: tokens in each slot
    after this step, int32, if `filled` has only upper bounds of them, which flash attention needs.
    """

    slots: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    filled: tuple[int, ...]
    places: torch.Tensor
    prefix: Keys | None = None
    held: torch.Tensor | None = None

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Return attention: a slot's token sees its slot and itself, a new row itself so far, all of them the prefix."""
        used = len(self.filled)
        slots = self.slots(settings.layer, key, value)
        for kept, tensor in zip(slots, (key, value), strict=True):
            kept.view(-1, *kept.shape[2:]).index_copy_(0, self.places, tensor)
        parts = [self._over_slots(query[:used], *slots, settings)] if used else []
        if len(self.lengths) > used:
            lengths = self.lengths[used:]
            parts.append(over_rows(query[used:], key[used:], value[used:], lengths, self._new, settings))
        return self._with_prefix(_joined(parts), query, settings)

    @functools.cached_property
    def _held(self) -> torch.Tensor:
        """Tokens in each slot in use after this step."""
        if self.held is not None:
            return self.held
        return to_device([held + 1 for held in self.filled], self.bounds.device, torch.int32)

    @functools.cached_property
    def _new(self) -> torch.Tensor:
        """Bounds of the new rows, counted from the first."""
        used = len(self.filled)
        return self.bounds[used:] - used

    @functools.cached_property
    def _starts(self) -> torch.Tensor:
        """Bounds of one query for each slot in use."""
        return bounds([1] * len(self.filled), self.bounds.device)

    @functools.cached_property
    def _empty(self) -> torch.Tensor | None:
        """Empty positions of slots in use, (slots, 1, 1, longest); None if all hold equally many tokens."""
        if len(set(self.filled)) < 2:
            return None
        return torch.arange(max(self.filled) + 1, device=self.bounds.device) >= self._held[:, None, None, None]

    def _over_slots(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, settings: AttentionSettings
    ) -> PartialAttention:
        """Return attention of the slots' tokens over their slots."""
        used, longest = len(self.filled), max(self.filled) + 1
        if flash.takes(query, values[0]):
            flat_keys, flat_values = (tensor.view(-1, *tensor.shape[2:]) for tensor in (keys, values))
            rows = flash.RowBounds(self._starts, self._starts * keys.shape[1], (1, longest))
            return flash.attend(query, flat_keys, flat_values, rows, settings.scale, flash.ALL, self._held)
        if self.held is not None:
            raise RuntimeError("slots whose lengths only the device knows need flash attention")
        held_keys, held_values = (tensor[:used, :longest].transpose(1, 2) for tensor in (keys, values))
        mask = None if self._empty is None else query.new_zeros(self._empty.shape).masked_fill_(self._empty, -torch.inf)
        return _flat(with_log_sums(query[:, :, None], held_keys, held_values, settings, mask=mask))


def over_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    bounds: torch.Tensor,
    settings: AttentionSettings,
) -> PartialAttention:
    """Return causal attention inside each row of a pack."""
    if flash.takes(query, value):
        return flash.attend(
            query, key, value, flash.RowBounds(bounds, bounds, (max(lengths), max(lengths))), settings.scale
        )
    parts = []
    for start, rows, length in runs(lengths):
        queries, keys, values = (block(tensor, start, rows, length) for tensor in (query, key, value))
        parts.append(_flat(with_log_sums(queries, keys, values, settings, causal=True)))
    return _joined(parts)


def over_keys(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings, rows: flash.RowBounds
) -> PartialAttention:
    """Return attention of every token over all keys; rows: bounds of both as one row."""
    if flash.takes(query, value):
        return flash.attend(query, key, value, rows, settings.scale, flash.ALL)
    keys, values = (tensor.transpose(0, 1)[None] for tensor in (key, value))
    size = len(query) if query.device.type == "cpu" else QUERIES
    return _joined(
        [_flat(with_log_sums(part.transpose(0, 1)[None], keys, values, settings)) for part in query.split(size)]
    )


def with_log_sums(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    settings: AttentionSettings,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> PartialAttention:
    """Return attention of blocks of shape (rows, heads, length, size), with log-sum-exp of scores (rows, heads, length)."""
    if query.device.type == "cpu" and query.shape[3] == value.shape[3]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=settings.scale
        )
    key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3)).float() * (
        query.shape[3] ** -0.5 if settings.scale is None else settings.scale
    )
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores.masked_fill(~_visible(scores.shape[2], scores.shape[3], None, query.device), -torch.inf)
    sums = scores.logsumexp(dim=3)
    return (scores - sums[..., None]).exp().to(value.dtype) @ value, sums


def _flat(attended: PartialAttention) -> PartialAttention:
    """Return blocks of rows as one sequence of tokens."""
    out, sums = attended
    return out.transpose(1, 2).flatten(0, 1), sums.transpose(1, 2).flatten(0, 1)


def _joined(parts: Sequence[PartialAttention]) -> PartialAttention:
    """Concatenate parts."""
    if len(parts) == 1:
        return parts[0]
    outputs, sums = zip(*parts, strict=True)
    return torch.cat(outputs), torch.cat(sums)


def _merge(attended: PartialAttention, other: PartialAttention) -> None:
    """Add attention of the same tokens over other keys, in place; in fp32 for any precision of the outputs."""
    (out, sums), (more, weight) = attended, other
    share = torch.sigmoid(weight - sums)[..., None]
    if out.dtype == torch.float32:
        out.lerp_(more, share)
    else:
        out.copy_(out.float().lerp_(more.float(), share))
    torch.logaddexp(sums, weight, out=sums)
