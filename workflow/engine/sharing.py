"""Attention to keys that several rows share: a prefix read once, a context with its branches, slots that rows write on.

The keys that a token sees stand in different places: those of its own row in the pack, those of its row's context before
the branches, those of the shared prefix in a store. Attention over each place gives an output and the log-sum of its
exponentiated scores; weighted by these, outputs add up to attention over all places at once (so does flash attention
from block to block: Dao et al. 2022, section 3.1). Nothing is copied for each row, nothing is padded. For inference:
no gradients, no dropout; layers with windows that rows reach, soft caps or sinks do not take part (`shareable`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from workflow.engine.attention import How, Packing, _flash, _for_each_head, _visible, block, runs

Weighed = tuple[torch.Tensor, torch.Tensor]  # output (tokens, heads, size), log-sum of scores (tokens, heads)
QUERIES = 1024  # that plain operations take at once


def shareable(asked: Sequence[How], longest: int) -> bool:
    """Whether layers that ask for this can share keys, in texts of at most `longest` tokens."""
    return all(
        how.layer is not None
        and how.softcap is None
        and how.sinks is None
        and (how.window is None or how.window >= longest)
        for how in asked
    ) and len({how.layer for how in asked}) == len(asked)


@dataclass(frozen=True)
class Keys:
    """Keys and values of tokens that were read before: layer -> (keys, values) of shape (tokens, heads, size)."""

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fans:
    """Contexts and the branches that go on from them: `contexts` has the tokens of each, `branches` those of all its own.

    The bounds are where each begins and the last one ends, counted from the first. seen: keys of the contexts, where
    these were read before.
    """

    contexts: tuple[int, ...]
    branches: tuple[int, ...]
    context_bounds: torch.Tensor
    branch_bounds: torch.Tensor
    seen: Keys | None = None


@dataclass(frozen=True)
class Branching(Packing):
    """Contexts with branches, unless seen before, then rows without, then the branches: `lengths` of all in this order.

    fans: which branches belong to which context; prefix: keys that all see; kept: where this pack's keys are left.
    """

    fans: Fans | None = None
    prefix: Keys | None = None
    kept: Keys | None = None

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Each token sees its own row so far, a branch its context, all of them the prefix."""
        if self.kept is not None:
            self.kept.layers[how.layer] = (key.clone(), value.clone())
        if self.fans is None and self.prefix is None:
            return super().attend(query, key, value, how)
        found = own(query, key, value, self.lengths, self.bounds, how)
        if self.fans is not None:
            asked, seen = sum(self.fans.branches), sum(self.fans.contexts)
            known = self.fans.seen.layers[how.layer] if self.fans.seen else (key[:seen], value[:seen])
            branches = tuple(part[len(query) - asked :] for part in found)
            _merge(branches, _over_contexts(query[len(query) - asked :], *known, self.fans, how))
        if self.prefix is not None:
            _merge(found, over(query, *self.prefix.layers[how.layer], how))
        return found[0]


def _over_contexts(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, fans: Fans, how: How) -> Weighed:
    """Branches over their contexts, neighbours of equal lengths together."""
    if _flash(query, value):
        longest = max(fans.branches), max(fans.contexts)
        return _varlen(query, key, value, (fans.branch_bounds, fans.context_bounds), longest, (-1, -1), how)
    parts, asked, seen = [], 0, 0
    for (fan, length), group in itertools.groupby(zip(fans.branches, fans.contexts, strict=True)):
        rows = sum(1 for _ in group)
        keys = (block(tensor, seen, rows, length) for tensor in (key, value))
        if fan:
            parts.append(_flat(weighed(block(query, asked, rows, fan), *keys, how)))
        asked, seen = asked + rows * fan, seen + rows * length
    return _joined(parts)


@dataclass(frozen=True)
class Writing(Packing):
    """One token each of the first slots, then whole rows for the slots behind them: a step of rows that are written on.

    slots: gives a layer's keys and values of shape (slots, room, heads, size), where this step's are put, from the
    layer's number and this step's; lengths: 1 for each slot in use, then the new rows'; filled: tokens that each slot in
    use holds already; places: where this step's token stands in it, counted through all slots; mask: scores to be added
    for these slots, of shape (slots, 1, 1, longest), -inf where nothing stands; prefix: keys that all see.
    """

    slots: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    filled: tuple[int, ...]
    places: torch.Tensor
    mask: torch.Tensor | None = None
    prefix: Keys | None = None

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Each slot's token sees what its slot holds and itself, each new row itself so far, all of them the prefix."""
        used = len(self.filled)
        slots = self.slots(how.layer, key, value)
        for kept, given in zip(slots, (key, value), strict=True):
            self._put(kept, given)
        parts = [self._over_slots(query[:used], *slots, how)] if used else []
        if len(self.lengths) > used:
            rows = tuple(tensor[used:] for tensor in (query, key, value))
            parts.append(own(*rows, self.lengths[used:], self.bounds[used:] - used, how))
        found = _joined(parts)
        if self.prefix is not None:
            _merge(found, over(query, *self.prefix.layers[how.layer], how))
        return found[0]

    def _put(self, kept: torch.Tensor, given: torch.Tensor) -> None:
        """Keep this step's keys, or values, in their slots."""
        used = len(self.filled)
        if used:
            kept.view(-1, *kept.shape[2:])[self.places] = given[:used]
        start = used
        for slot, length in enumerate(self.lengths[used:], start=used):
            kept[slot, :length] = given[start : start + length]
            start += length

    def _over_slots(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, how: How) -> Weighed:
        """The slots' tokens over all that their slots hold."""
        used, longest = len(self.filled), max(self.filled) + 1
        if _flash(query, values[0]):
            room, device = keys.shape[1], query.device
            starts = torch.arange(used + 1, dtype=torch.int32, device=device)
            held = (self.places + 1 - starts[:-1] * room).to(torch.int32)
            flat = (tensor.view(-1, *tensor.shape[2:]) for tensor in (keys, values))
            return _varlen(query, *flat, (starts, starts * room), (1, longest), (-1, -1), how, held)
        held = (tensor[:used, :longest].transpose(1, 2) for tensor in (keys, values))
        return _flat(weighed(query[:, :, None], *held, how, mask=self.mask))


def own(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    bounds: torch.Tensor,
    how: How,
) -> Weighed:
    """Causal attention inside each row of a pack."""
    if _flash(query, value):
        return _varlen(query, key, value, (bounds, bounds), (max(lengths), max(lengths)), (-1, 0), how)
    return _joined(
        [
            _flat(weighed(*(block(tensor, start, rows, length) for tensor in (query, key, value)), how, causal=True))
            for start, rows, length in runs(lengths)
        ]
    )


def over(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> Weighed:
    """Every token over all of the keys."""
    if _flash(query, value):
        ends = [torch.tensor([0, len(part)], dtype=torch.int32, device=query.device) for part in (query, key)]
        return _varlen(query, key, value, ends, (len(query), len(key)), (-1, -1), how)
    keys = [tensor.transpose(0, 1)[None] for tensor in (key, value)]
    size = len(query) if query.device.type == "cpu" else QUERIES
    return _joined([_flat(weighed(part.transpose(0, 1)[None], *keys, how)) for part in query.split(size)])


def weighed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    how: How,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> Weighed:
    """Attention of blocks of shape (rows, heads, length, size), with the log-sum of scores of shape (rows, heads, length)."""
    if query.device.type == "cpu" and query.shape[3] == value.shape[3]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=how.scale
        )
    key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3)).float() * (query.shape[3] ** -0.5 if how.scale is None else how.scale)
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores.masked_fill(~_visible(*scores.shape[2:], None, query.device), -torch.inf)
    sums = scores.logsumexp(dim=3)
    return (scores - sums[..., None]).exp().to(value.dtype) @ value, sums


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: Sequence[torch.Tensor],
    longest: tuple[int, int],
    window: tuple[int, int],
    how: How,
    held: torch.Tensor | None = None,
) -> Weighed:
    """Flash attention of rows between bounds of queries and keys; held: keys that count, from each row's first."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    found, sums = varlen_attn(
        query.contiguous(), key.contiguous(), value.contiguous(), *bounds, *longest, return_aux=AuxRequest(lse=True),
        scale=how.scale, window_size=window, enable_gqa=query.shape[1] != key.shape[1], seqused_k=held,
    )  # fmt: skip
    return found, sums.transpose(0, 1)


def _flat(found: Weighed) -> Weighed:
    """Blocks of rows as tokens one after the other."""
    out, sums = found
    return out.transpose(1, 2).flatten(0, 1), sums.transpose(1, 2).flatten(0, 1)


def _joined(parts: Sequence[Weighed]) -> Weighed:
    """Parts one after the other."""
    return parts[0] if len(parts) == 1 else tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def _merge(found: Weighed, other: Weighed) -> None:
    """Add, in place, what the same tokens get from other keys; in fp32, whatever the precision of the outputs."""
    (out, sums), (more, weight) = found, other
    share = torch.sigmoid(weight - sums)[..., None]
    if out.dtype == torch.float32:
        out.lerp_(more, share)
    else:
        out.copy_(out.float().lerp_(more.float(), share))
    torch.logaddexp(sums, weight, out=sums)
