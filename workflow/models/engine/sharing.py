"""Attention to keys that several rows share: a prefix read once, a context with its branches, slots that rows write on.

The keys that a token sees stand in different places: those of its own row in the pack, those of its row's context before
the branches, those of the shared prefix in a store. Attention over each place gives an output and the log-sum of its
exponentiated scores; weighted by these, outputs add up to attention over all places at once (so does flash attention
from block to block: Dao et al. 2022, section 3.1). Nothing is copied for each row, nothing is padded. For inference:
no gradients, no dropout; layers with windows that rows reach, soft caps or sinks do not take part (`shareable`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from workflow.models.engine import flash
from workflow.models.engine.attention import How, Packing, _for_each_head, _visible, block, bounds, runs, sent

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

    @property
    def tokens(self) -> int:
        """How many tokens were read."""
        return len(next(iter(self.layers.values()))[0])


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


class After(Packing):
    """A packing whose rows may all go on from a prefix."""

    prefix: Keys | None

    @functools.cached_property
    def _over_prefix(self) -> flash.Rows:
        """All tokens over the prefix, as one row; the same in every layer."""
        own, seen = (bounds([length], self.bounds.device) for length in (sum(self.lengths), self.prefix.tokens))
        return flash.Rows(own, seen, (sum(self.lengths), self.prefix.tokens))

    def _with_prefix(self, found: Weighed, query: torch.Tensor, how: How) -> torch.Tensor:
        """The output of attention over a row's own keys, and over the prefix where there is one."""
        if self.prefix is not None:
            _merge(found, over(query, *self.prefix.layers[how.layer], how, self._over_prefix))
        return found[0]


@dataclass(frozen=True)
class Branching(After):
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
        return self._with_prefix(found, query, how)


def _over_contexts(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, fans: Fans, how: How) -> Weighed:
    """Branches over their contexts, neighbours of equal lengths together."""
    if flash.takes(query, value):
        rows = flash.Rows(fans.branch_bounds, fans.context_bounds, (max(fans.branches), max(fans.contexts)))
        return flash.attend(query, key, value, rows, how.scale, flash.ALL)
    parts, asked, seen = [], 0, 0
    for (fan, length), group in itertools.groupby(zip(fans.branches, fans.contexts, strict=True)):
        rows = sum(1 for _ in group)
        keys = (block(tensor, seen, rows, length) for tensor in (key, value))
        if fan:
            parts.append(_flat(weighed(block(query, asked, rows, fan), *keys, how)))
        asked, seen = asked + rows * fan, seen + rows * length
    return _joined(parts)


@dataclass(frozen=True)
class Writing(After):
    """One token each of the first slots, then whole rows for the slots behind them: a step of rows that are written on.

    slots: gives a layer's keys and values of shape (slots, room, heads, size), where this step's are put, from the
    layer's number and this step's; lengths: 1 for each slot in use, then the new rows'; filled: tokens that each slot in
    use holds already; places: where each token of this step is put, counted through the places of all slots; prefix: keys
    that all see; held: tokens that each slot in use holds once this step's are in it, int32, where `filled` are but bounds
    of them that flash attention has to know.
    """

    slots: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    filled: tuple[int, ...]
    places: torch.Tensor
    prefix: Keys | None = None
    held: torch.Tensor | None = None

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Each slot's token sees what its slot holds and itself, each new row itself so far, all of them the prefix."""
        used = len(self.filled)
        slots = self.slots(how.layer, key, value)
        for kept, given in zip(slots, (key, value), strict=True):
            kept.view(-1, *kept.shape[2:]).index_copy_(0, self.places, given)
        parts = [self._over_slots(query[:used], *slots, how)] if used else []
        if len(self.lengths) > used:
            rows = tuple(tensor[used:] for tensor in (query, key, value))
            parts.append(own(*rows, self.lengths[used:], self._new, how))
        return self._with_prefix(_joined(parts), query, how)

    @functools.cached_property
    def _held(self) -> torch.Tensor:
        """Tokens that each slot in use holds once this step's are in it."""
        if self.held is not None:
            return self.held
        return sent([held + 1 for held in self.filled], self.bounds.device, torch.int32)

    @functools.cached_property
    def _new(self) -> torch.Tensor:
        """Where the new rows begin, counted from the first."""
        used = len(self.filled)
        return self.bounds[used:] - used

    @functools.cached_property
    def _starts(self) -> torch.Tensor:
        """One query for each slot in use."""
        return bounds([1] * len(self.filled), self.bounds.device)

    @functools.cached_property
    def _empty(self) -> torch.Tensor | None:
        """Where slots in use hold nothing, (slots, 1, 1, longest); None where all hold the same."""
        if len(set(self.filled)) < 2:
            return None
        return torch.arange(max(self.filled) + 1, device=self.bounds.device) >= self._held[:, None, None, None]

    def _over_slots(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, how: How) -> Weighed:
        """The slots' tokens over all that their slots hold."""
        used, longest = len(self.filled), max(self.filled) + 1
        if flash.takes(query, values[0]):
            flat = (tensor.view(-1, *tensor.shape[2:]) for tensor in (keys, values))
            rows = flash.Rows(self._starts, self._starts * keys.shape[1], (1, longest))
            return flash.attend(query, *flat, rows, how.scale, flash.ALL, self._held)
        if self.held is not None:
            raise RuntimeError("slots whose tokens are known to the device alone have to go through flash attention")
        held = (tensor[:used, :longest].transpose(1, 2) for tensor in (keys, values))
        mask = None if self._empty is None else query.new_zeros(self._empty.shape).masked_fill_(self._empty, -torch.inf)
        return _flat(weighed(query[:, :, None], *held, how, mask=mask))


def own(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    bounds: torch.Tensor,
    how: How,
) -> Weighed:
    """Causal attention inside each row of a pack."""
    if flash.takes(query, value):
        return flash.attend(query, key, value, flash.Rows(bounds, bounds, (max(lengths), max(lengths))), how.scale)
    return _joined(
        [
            _flat(weighed(*(block(tensor, start, rows, length) for tensor in (query, key, value)), how, causal=True))
            for start, rows, length in runs(lengths)
        ]
    )


def over(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How, rows: flash.Rows) -> Weighed:
    """Every token over all of the keys; rows: both as one row."""
    if flash.takes(query, value):
        return flash.attend(query, key, value, rows, how.scale, flash.ALL)
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
