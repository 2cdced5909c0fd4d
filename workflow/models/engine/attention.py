"""Attention over rows that are packed into one sequence, without padding.

It is registered with transformers' attention interface as IMPLEMENTATION, so every model whose layers use the interface can
run on packed rows: `adopt(model)`, then `model(**packed(rows, device), use_cache=False)`. Positions
restart at each row and no row sees another. Gradients flow; log-probabilities and gradients equal those of single rows.

On a GPU in half precision, all rows are one call of flash attention for variable lengths; otherwise neighbours of equal
length are one call of torch's attention. Of the additions to attention that the interface passes on, windows, grouped heads,
soft caps and sinks are supported; all others are refused, not ignored.
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
    """Rows packed into a sequence: their lengths in tokens, none of them 0.

    bounds: the start of each row and the end of the last, int32 of shape (rows + 1), on the device of the sequence.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Causal attention inside each row; tensors of shape (tokens, heads, head size), with fewer heads of key and value."""
        if flash.takes(query, value) and not settings.dropout and settings.softcap is None and settings.sinks is None:
            return self._at_once(query, key, value, settings)
        groups = [(rows, length) for _, rows, length in runs(self.lengths)]
        # Split: the gradient of a slice would be as long as the whole sequence, once for each row.
        pieces = [tensor.split([rows * length for rows, length in groups]) for tensor in (query, key, value)]
        parts = [
            equal_lengths(
                block(queries, 0, rows, length), block(keys, 0, rows, length), block(values, 0, rows, length), settings
            )
            for queries, keys, values, (rows, length) in zip(*pieces, groups, strict=True)
        ]
        return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])

    def _at_once(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        longest = max(self.lengths)
        left = -1 if settings.window is None or settings.window >= longest else settings.window - 1
        rows = flash.RowBounds(self.bounds, self.bounds, (longest, longest))
        return flash.attend(query, key, value, rows, settings.scale, (left, 0))[0]


@dataclass(frozen=True)
class AttentionSettings:
    """What a layer asks of its attention in addition to causality.

    layer: its number, -1 where it has none; scale: factor of the scores; dropout: share of weights that are dropped;
    window: keys that a query sees, its own among them (None: all before it); softcap: scores become
    softcap * tanh(score / softcap); sinks: for each head the score of a key without a value.
    """

    layer: int = -1
    scale: float | None = None
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


def runs(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, rows, length) of each run of neighbouring rows of equal length."""
    start = 0
    for length, group in itertools.groupby(lengths):
        rows = sum(1 for _ in group)
        yield start, rows, length
        start += rows * length


def block(tensor: torch.Tensor, start: int, rows: int, length: int) -> torch.Tensor:
    """Return rows of equal length as (rows, heads, length, head size), a view of (tokens, heads, head size)."""
    return tensor[start : start + rows * length].unflatten(0, (rows, length)).transpose(1, 2)


def equal_lengths(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
) -> torch.Tensor:
    """Return causal attention of rows of equal length; tensors and result of shape (rows, heads, length, head size).

    If there are fewer queries than keys, the queries are those of the rows' last positions.
    """
    queries, length, grouped = query.shape[2], key.shape[2], query.shape[1] != key.shape[1]
    windowed = settings.window is not None and settings.window < length
    if settings.softcap is not None or settings.sinks is not None:
        return _spelled_out(query, key, value, settings)
    # GPU kernels for single precision need equally many heads; the CPU's kernel shares heads itself.
    if grouped and query.device.type != "cpu":
        key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
        grouped = False
    mask = _visible(queries, length, settings.window, query.device) if windowed or 1 < queries < length else None
    return functional.scaled_dot_product_attention(
        query, key, value, mask, settings.dropout, is_causal=mask is None and queries == length, scale=settings.scale,
        enable_gqa=grouped,
    )  # fmt: skip


def _visible(queries: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Return which keys of a row each of its last queries sees: shape (queries, length)."""
    before = length - queries
    whole = torch.ones(queries, length, dtype=torch.bool, device=device).tril(before)
    return whole if window is None else whole.triu(before + 1 - window)


def _for_each_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return keys or values with one head for each head of the queries."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def _spelled_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
) -> torch.Tensor:
    """Return the same by plain operations, for what torch's attention does not support: soft caps and sinks."""
    key, value = (_for_each_head(tensor, query.shape[1]) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if settings.scale is None else settings.scale)
    if settings.softcap is not None:
        scores = settings.softcap * torch.tanh(scores / settings.softcap)
    visible = _visible(scores.shape[2], scores.shape[3], settings.window, query.device)
    scores = scores.masked_fill(~visible, -torch.inf)
    if settings.sinks is not None:
        sinks = settings.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=3)
    weights = scores.softmax(dim=3, dtype=torch.float32).to(value.dtype)[..., : key.shape[2]]
    return functional.dropout(weights, settings.dropout) @ value


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
    """Attend as transformers calls it for each layer; tensors (1, heads, tokens, size), result (1, tokens, heads, size).

    Errors: StudyError if the layer asks for something that is not supported, or `packing` is missing.
    """
    unsupported = [name for name in ("position_bias", "block_mask", "cache") if others.get(name) is not None]
    if attention_mask is not None or unsupported or packing is None:
        reason = ", ".join(unsupported) or ("no packing" if packing is None else "a mask of the model's own")
        raise StudyError(f"{type(module).__name__}: attention asks for {reason}, which packed rows do not support")
    if query.dtype != value.dtype:  # rotary embeddings leave fp32 behind under autocast
        query, key = query.to(value.dtype), key.to(value.dtype)
    settings = AttentionSettings(_number(module), scaling, dropout, sliding_window, softcap, s_aux)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return packing.attend(queries, keys, values, settings)[None], None


def _number(module: torch.nn.Module) -> int:
    """The number of a layer, -1 where it has none."""
    number = getattr(module, "layer_idx", None)
    return -1 if number is None else int(number)


AttentionInterface.register(IMPLEMENTATION, forward)


def packed(rows: Sequence[Sequence[int]], device: torch.device | str) -> dict[str, Any]:
    """Return rows of token ids, none of them empty, as a model's inputs: one sequence, its positions and its Packing."""
    lengths = tuple(map(len, rows))
    positions = itertools.chain.from_iterable(map(range, lengths))
    return {
        "input_ids": to_device([list(itertools.chain(*rows))], device),
        "position_ids": to_device([list(positions)], device),
        "packing": Packing(lengths, bounds(lengths, device)),
    }


def to_device(numbers: Sequence[Any], device: torch.device | str, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """Return numbers as a tensor on a device; the host does not wait for a busy GPU to receive them."""
    tensor = torch.tensor(numbers, dtype=dtype)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def bounds(lengths: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Return the starts of rows of these lengths and the end of the last: int32 of shape (rows + 1)."""
    return to_device([0, *itertools.accumulate(lengths)], device, torch.int32)


def adopt(model: PreTrainedModel) -> None:
    """Set a causal model's attention to this module.

    Errors: StudyError for a model that does not use the attention interface, or whose layers have other state
    (convolutions, recurrences) by which packed rows would mix; see `packable`.
    """
    if not packable(model):
        raise StudyError(f"{type(model).__name__}: rows of this architecture cannot be packed into one sequence")
    model.set_attn_implementation(IMPLEMENTATION)


def packable(model: PreTrainedModel) -> bool:
    """Return whether the model's rows can be packed: whether two short rows give the same logits packed and alone.

    A model whose rotary positions depend on the longest row (`rotary`) cannot; short rows would not show it.
    """
    return attention_settings(model) is not None


def attention_settings(model: PreTrainedModel) -> list[AttentionSettings] | None:
    """Return each layer's attention settings, in order; None if rows cannot be packed (`packable`)."""
    if not model._can_set_attn_implementation() or rotary.stretches(model):
        return None
    implementation, training = model.config._attn_implementation, model.training
    rows = _probes(model.config.get_text_config().vocab_size)
    inputs = packed(rows, model.device)
    listening = _Listening(inputs["packing"].lengths, inputs["packing"].bounds)
    model.eval()
    try:
        with torch.no_grad():
            alone = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits for row in rows]
            model.set_attn_implementation(IMPLEMENTATION)
            logits = model(**inputs | {"packing": listening}, use_cache=False).logits
    except torch.OutOfMemoryError:
        raise
    # The model has its own mask, its forward takes no such argument, or it has keys of more positions than tokens.
    except (StudyError, TypeError, ValueError, RuntimeError):
        return None
    finally:
        model.set_attn_implementation(implementation)
        model.train(training)
    whole = _limits(model) <= {settings.window for settings in listening.asked}
    return listening.asked if whole and _alike(logits, torch.cat(alone, dim=1)) else None


@dataclass(frozen=True)
class _Listening(Packing):
    """A packing that records the layers' settings."""

    asked: list[AttentionSettings] = field(default_factory=list)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """As any packing does."""
        self.asked.append(settings)
        return super().attend(query, key, value, settings)


def _limits(model: PreTrainedModel) -> set[int | None]:
    """Return the attention windows in the config; a layer that does not pass its window on would attend to all keys."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    layers = config.per_layer_config
    sliding = {getattr(layer, "sliding_window", None) for layer in layers} if "sliding_attention" in kinds else set()
    chunks = {getattr(layer, "attention_chunk_size", -1) for layer in layers} if "chunked_attention" in kinds else set()
    return sliding | chunks


def _probes(vocabulary: int) -> list[list[int]]:
    """Return two rows of token ids that differ at each position, the second one longer."""
    return [
        [(7 * position + 1) % vocabulary for position in range(5)],
        [(5 * position + 2) % vocabulary for position in range(9)],
    ]


def _alike(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether logits agree up to rounding; if rows mix, logits are off by about their spread over tokens.

    True for weights that are not finite, of which this says nothing; the code that uses the scores reports them.
    """
    if not bool(expected.isfinite().all()):
        return True
    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.1
    return bool((logits.float() - expected.float()).abs().mean() <= tolerance * expected.float().std())
