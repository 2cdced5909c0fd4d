"""Run the last layer only at the ends of packed rows, where its output is needed.

The last layer needs keys and values at every position, but everything else only where its output is used. So the layer is
entered twice: first with all positions up to its attention, which stores keys and values and leaves the layer; then with the
ends only, whose queries attend to the stored ones. This uses transformers' attention interface and no architecture's code.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workflow.models.engine import attention, flash
from workflow.models.engine.attention import AttentionSettings, Packing

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Reached(Exception):  # noqa: N818 - not an error: leaves the layer in the first pass
    """Raised when the last layer's attention is reached; holds its keys and values."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.key, self.value = key, value


class _Stopping(Packing):
    """A packing that leaves the layer at its attention."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Raise _Reached with the keys and values of all positions."""
        raise _Reached(key, value)


@dataclass(frozen=True)
class _Ends(Packing):
    """The last `kept` positions of packed rows, which attend to keys and values of all positions."""

    kept: tuple[int, ...]
    ends: torch.Tensor  # bounds of the rows' ends, as `bounds` are of the rows
    key: torch.Tensor
    value: torch.Tensor

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: AttentionSettings
    ) -> torch.Tensor:
        """Return attention of the ends, (ends, heads, head size); their keys and values are among the stored ones."""
        if flash.takes(query, value) and not settings.dropout and settings.softcap is None and settings.sinks is None:
            left = -1 if settings.window is None else settings.window - 1
            rows = flash.RowBounds(self.ends, self.bounds, (max(self.kept), max(self.lengths)))
            return flash.attend(query, self.key, self.value, rows, settings.scale, (left, 0))[0]
        pieces = zip(query.split(self.kept), self.key.split(self.lengths), self.value.split(self.lengths), strict=True)
        parts = [
            attention.equal_lengths(
                queries.transpose(0, 1)[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None], settings
            )
            for queries, keys, values in pieces
        ]
        return torch.cat([part[0].transpose(0, 1) for part in parts])


def ends(lengths: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Return the positions in a pack that are the last `kept` ones of each row."""
    stops = itertools.accumulate(lengths)
    return [position for stop, last in zip(stops, kept, strict=True) for position in range(stop - last, stop)]


@contextlib.contextmanager
def narrowed(model: PreTrainedModel, kept: Sequence[int]) -> Iterator[None]:
    """Inside, a model on packed rows has outputs only at the last `kept` positions (1 or more) of each row."""

    def enter(
        layer: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict]:
        packing = named["packing"]
        key, value = _seen(layer, arguments, named)
        device, tokens = packing.bounds.device, sum(packing.lengths)
        places, starts = attention.to_device(ends(packing.lengths, kept), device), attention.bounds(kept, device)
        left = {name: _at(entry, places, tokens) for name, entry in named.items()}
        left["packing"] = _Ends(packing.lengths, packing.bounds, tuple(kept), starts, key, value)
        return tuple(_at(entry, places, tokens) for entry in arguments), left

    hook = _last_layer(model).register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _seen(
    layer: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's keys and values at all positions."""
    packing = _Stopping(named["packing"].lengths, named["packing"].bounds)
    try:
        layer.forward(*arguments, **named | {"packing": packing})
    except _Reached as reached:
        return reached.key, reached.value
    raise TypeError(f"{type(layer).__name__} does not ask for its attention")


def _at(value: Any, places: torch.Tensor, tokens: int) -> Any:
    """Return a layer's argument at some positions only: a tensor of shape (1, tokens, …), or a tuple of them."""
    if isinstance(value, tuple):
        return tuple(_at(entry, places, tokens) for entry in value)
    if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[:2] == (1, tokens):
        return value.index_select(1, places)
    return value


def _last_layer(model: PreTrainedModel) -> torch.nn.Module:
    """Return the last of a model's blocks, by the class names that transformers lists."""
    names = set(model._no_split_modules or ())
    # Sharding gives a block a subclass of its class.
    return [module for module in model.modules() if names & {kind.__name__ for kind in type(module).__mro__}][-1]


@torch.no_grad()
def narrowable(model: PreTrainedModel) -> bool:
    """Return whether the last layer can be narrowed, tested on two short packed rows."""
    rows, kept = [[1, 2, 3, 4, 5], [6, 7, 8]], [2, 1]
    fed = attention.packed(rows, model.device)
    training = model.training
    model.eval()
    try:
        expected = model(**fed, use_cache=False).logits[0, ends([len(row) for row in rows], kept)]
        with narrowed(model, kept):
            narrow_logits = model(**fed, use_cache=False).logits[0]
    except (IndexError, KeyError, RuntimeError, TypeError):  # layers of another structure
        return False
    finally:
        model.train(training)
    return narrow_logits.shape == expected.shape and torch.allclose(
        narrow_logits, expected, atol=1e-3, rtol=1e-3, equal_nan=True
    )
