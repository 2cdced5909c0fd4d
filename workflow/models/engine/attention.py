"""Attention over rows that are packed one after the other into one sequence, without padding.

Registered with transformers' own interface under the name IMPLEMENTATION, so that every model whose layers ask the
interface for their attention can be fed packs: `adopt(model)`, then `model(**packed(rows, device), use_cache=False)`. Positions
restart at each row and no row sees another. Gradients flow; log-probabilities and gradients are those of rows fed alone.

On a GPU in half precision all rows are one call of flash attention for variable lengths; else neighbours of equal length
are one call of torch's own attention. What models add to attention is passed on by the interface: windows, grouped heads,
soft caps and sinks are done here, anything else is refused rather than left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from workflow.errors import StudyError
from workflow.models.engine import flash, rotary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "packed"


@dataclass(frozen=True)
class Packing:
    """Rows that stand one after the other in a sequence: their lengths in tokens, none of them 0.

    bounds: where each begins and the last one ends, int32 of shape (rows + 1), on the device of the sequence.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Causal attention inside each row; tensors of shape (tokens, heads, head size), with fewer heads of key and value."""
        if flash.takes(query, value) and not how.dropout and how.softcap is None and how.sinks is None:
            return self._at_once(query, key, value, how)
        found = [(rows, length) for _, rows, length in runs(self.lengths)]
        # Split: the gradient of a slice would be as long as the whole sequence, once for each row.
        pieces = [tensor.split([rows * length for rows, length in found]) for tensor in (query, key, value)]
        parts = [
            together(*(block(piece, 0, rows, length) for piece in run), how)
            for *run, (rows, length) in zip(*pieces, found, strict=True)
        ]
        return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])

    def _at_once(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        longest = max(self.lengths)
        left = -1 if how.window is None or how.window >= longest else how.window - 1
        rows = flash.Rows(self.bounds, self.bounds, (longest, longest))
        return flash.attend(query, key, value, rows, how.scale, (left, 0))[0]


@dataclass(frozen=True)
class How:
    """What a layer asks of its attention beside causality.

    layer: its number; scale: factor of the scores; dropout: share of weights that are dropped; window: keys that a query
    sees, itself among them (None: all before it); softcap: scores go through softcap * tanh(score / softcap); sinks: for
    each head the score of a key without a value.
    """

    layer: int | None = None
    scale: float | None = None
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


def runs(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Neighbours of equal length: the place where they begin, how many they are, their length."""
    start = 0
    for length, group in itertools.groupby(lengths):
        rows = sum(1 for _ in group)
        yield start, rows, length
        start += rows * length


def block(tensor: torch.Tensor, start: int, rows: int, length: int) -> torch.Tensor:
    """Rows of equal length as (rows, heads, length, head size), a view of (tokens, heads, head size)."""
    return tensor[start : start + rows * length].unflatten(0, (rows, length)).transpose(1, 2)


def together(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
    """Causal attention of rows of equal length; tensors and result of shape (rows, heads, length, head size).

    Queries may be fewer than keys: they are then those of the rows' last places.
    """
    asked, length, grouped = query.shape[2], key.shape[2], query.shape[1] != key.shape[1]
    windowed = how.window is not None and how.window < length
    if how.softcap is not None or how.sinks is not None:
        return _spelled_out(query, key, value, how)
    # GPU kernels for single precision want equally many heads; the CPU's shares them itself.
    if grouped and query.device.type != "cpu":
        key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
        grouped = False
    mask = _visible(asked, length, how.window, query.device) if windowed or 1 < asked < length else None
    return functional.scaled_dot_product_attention(
        query, key, value, mask, how.dropout, is_causal=mask is None and asked == length, scale=how.scale,
        enable_gqa=grouped,
    )  # fmt: skip


def _visible(asked: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which keys of a row each of its last queries sees, of shape (asked, length)."""
    before = length - asked
    whole = torch.ones(asked, length, dtype=torch.bool, device=device).tril(before)
    return whole if window is None else whole.triu(before + 1 - window)


def _for_each_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values with a head for every head of the queries."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def _spelled_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
    """The same in plain operations, for what torch's own attention does not know: soft caps and sinks."""
    key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if how.scale is None else how.scale)
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    scores = scores.masked_fill(~_visible(*scores.shape[2:], how.window, query.device), -torch.inf)
    if how.sinks is not None:
        sinks = how.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=3)
    weights = scores.softmax(dim=3, dtype=torch.float32).to(value.dtype)[..., : key.shape[2]]
    return functional.dropout(weights, how.dropout) @ value


def forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for each layer; tensors of shape (1, heads, tokens, size), result (1, tokens, heads, size).

    Errors: StudyError where the layer asks for what is not done here, or the model was fed without `packing`.
    """
    asked = [name for name in ("position_bias", "block_mask", "cache") if others.get(name) is not None]
    if attention_mask is not None or asked or packing is None:
        found = ", ".join(asked) or ("no packing" if packing is None else "a mask of the model's own")
        raise StudyError(f"{type(module).__name__}: packed rows with {found}, expected nothing but rows")
    if query.dtype != value.dtype:  # rotary embeddings leave fp32 behind under autocast
        query, key = query.to(value.dtype), key.to(value.dtype)
    how = How(getattr(module, "layer_idx", None), scaling, dropout, sliding_window, softcap, s_aux)
    found = packing.attend(*(tensor[0].transpose(0, 1) for tensor in (query, key, value)), how)
    return found[None], None


AttentionInterface.register(IMPLEMENTATION, forward)


def packed(rows: Sequence[Sequence[int]], device: torch.device | str) -> dict[str, Any]:
    """Rows of token ids, none of them empty, as a model's inputs: one sequence, positions that restart, its Packing."""
    lengths = tuple(map(len, rows))
    positions = itertools.chain.from_iterable(map(range, lengths))
    return {
        "input_ids": sent([list(itertools.chain(*rows))], device),
        "position_ids": sent([list(positions)], device),
        "packing": Packing(lengths, bounds(lengths, device)),
    }


def sent(numbers: Sequence[Any], device: torch.device | str, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """A tensor of numbers on a device; the host does not wait until a GPU, busy with what came before, has them."""
    found = torch.tensor(numbers, dtype=dtype)
    if torch.device(device).type == "cuda":
        return found.pin_memory().to(device, non_blocking=True)
    return found.to(device)


def bounds(lengths: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Where rows of these lengths begin, and the last one ends: int32 of shape (rows + 1)."""
    return sent([0, *itertools.accumulate(lengths)], device, torch.int32)


def adopt(model: PreTrainedModel) -> None:
    """Let a causal model attend by this module from now on.

    Errors: StudyError for a model that does not leave attention to the interface, or whose layers keep a state of
    another kind (convolutions, recurrences), so that rows in one sequence would mix; see `packable`.
    """
    if not packable(model):
        raise StudyError(f"{type(model).__name__}: rows of this architecture cannot be packed into one sequence")
    model.set_attn_implementation(IMPLEMENTATION)


def packable(model: PreTrainedModel) -> bool:
    """Whether rows of the model can be packed, as two short rows show: packed and alone they come out alike.

    Positions that follow the longest row (`rotary`), which short rows would not show, cannot.
    """
    return asked(model) is not None


def asked(model: PreTrainedModel) -> list[How] | None:
    """What each layer of a model asks of its attention, in order; None where its rows cannot be packed, see `packable`."""
    if not model._can_set_attn_implementation() or rotary.stretches(model):
        return None
    own, training = model.config._attn_implementation, model.training
    rows = _probes(model.config.get_text_config().vocab_size)
    fed = packed(rows, model.device)
    heard = _Listening(fed["packing"].lengths, fed["packing"].bounds)
    model.eval()
    try:
        with torch.no_grad():
            alone = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits for row in rows]
            model.set_attn_implementation(IMPLEMENTATION)
            found = model(**fed | {"packing": heard}, use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    # A mask of its own; a forward that takes no such argument; keys of more places than there are tokens.
    except (StudyError, TypeError, ValueError, RuntimeError):
        return None
    finally:
        model.set_attn_implementation(own)
        model.train(training)
    whole = _limits(model) <= {how.window for how in heard.asked}
    return heard.asked if whole and _alike(found, torch.cat(alone, dim=1)) else None


@dataclass(frozen=True)
class _Listening(Packing):
    """A packing that notes what the layers ask for."""

    asked: list[How] = field(default_factory=list)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """As any packing does."""
        self.asked.append(how)
        return super().attend(query, key, value, how)


def _limits(model: PreTrainedModel) -> set[int | None]:
    """Windows that the config sets to attention; layers that do not pass theirs on would attend to all."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    layers = config.per_layer_config
    sliding = {getattr(own, "sliding_window", None) for own in layers} if "sliding_attention" in kinds else set()
    chunks = {getattr(own, "attention_chunk_size", -1) for own in layers} if "chunked_attention" in kinds else set()
    return sliding | chunks


def _probes(vocabulary: int) -> list[list[int]]:
    """Two rows of token ids that differ at each place, the second the longer."""
    return [[(7 * place + 1) % vocabulary for place in range(5)], [(5 * place + 2) % vocabulary for place in range(9)]]


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits agree but for rounding; what mixes rows is off by as much as logits differ between tokens.

    Broken weights tell nothing; who reads what they give reports them.
    """
    if not bool(expected.isfinite().all()):
        return True
    near = 1e-3 if expected.dtype == torch.float32 else 0.1
    return bool((found.float() - expected.float()).abs().mean() <= near * expected.float().std())
