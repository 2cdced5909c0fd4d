"""The last layer's work at the ends of packed rows alone, where its output is read.

Of a model's last layer, keys and values are needed at every place, all else only where the output is read. So the layer
is entered twice: with all places as far as its attention, which keeps keys and values and leaves; then with the ends
alone, whose queries meet the kept ones. This goes by transformers' interface for attention, not by architecture.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workflow.models.engine import attention, flash
from workflow.models.engine.attention import How, Packing

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Reached(Exception):  # noqa: N818 - no error: how the first entry leaves the layer
    """The last layer's attention was reached; holds its keys and values."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.key, self.value = key, value


class _Stopping(Packing):
    """A packing that leaves as soon as a layer asks for its attention."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Nothing but the keys and values of all places."""
        raise _Reached(key, value)


@dataclass(frozen=True)
class _Ends(Packing):
    """The last places of packed rows, as many as `kept` says, which attend to keys and values of all places."""

    kept: tuple[int, ...]
    ends: torch.Tensor  # where the ends of each row begin, counted from the first, as `bounds` of the rows
    key: torch.Tensor
    value: torch.Tensor

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> torch.Tensor:
        """Attention of the ends, (ends, heads, head size); their own keys and values are among the kept ones."""
        if flash.takes(query, value) and not how.dropout and how.softcap is None and how.sinks is None:
            left = -1 if how.window is None else how.window - 1
            rows = flash.Rows(self.ends, self.bounds, (max(self.kept), max(self.lengths)))
            return flash.attend(query, self.key, self.value, rows, how.scale, (left, 0))[0]
        pieces = zip(query.split(self.kept), self.key.split(self.lengths), self.value.split(self.lengths), strict=True)
        parts = [attention.together(*(piece.transpose(0, 1)[None] for piece in row), how) for row in pieces]
        return torch.cat([part[0].transpose(0, 1) for part in parts])


def ends(lengths: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Places in a pack that are the last `kept` ones of each row."""
    stops = itertools.accumulate(lengths)
    return [place for stop, last in zip(stops, kept, strict=True) for place in range(stop - last, stop)]


@contextlib.contextmanager
def narrowed(model: PreTrainedModel, kept: Sequence[int]) -> Iterator[None]:
    """Inside, a model fed with packed rows has an output at the last `kept` places (1 or more) of each row alone."""

    def enter(layer: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        packing = named["packing"]
        key, value = _seen(layer, given, named)
        device, tokens = packing.bounds.device, sum(packing.lengths)
        places, starts = attention.sent(ends(packing.lengths, kept), device), attention.bounds(kept, device)
        left = {name: _at(entry, places, tokens) for name, entry in named.items()}
        left["packing"] = _Ends(packing.lengths, packing.bounds, tuple(kept), starts, key, value)
        return tuple(_at(entry, places, tokens) for entry in given), left

    hook = _last_layer(model).register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _seen(layer: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's keys and values of all places."""
    packing = _Stopping(named["packing"].lengths, named["packing"].bounds)
    try:
        layer.forward(*given, **named | {"packing": packing})
    except _Reached as reached:
        return reached.key, reached.value
    raise TypeError(f"{type(layer).__name__} does not ask for its attention")


def _at(value: Any, places: torch.Tensor, tokens: int) -> Any:
    """What a layer is given, at some places alone: tensors of shape (1, tokens, …), and tuples of them."""
    if isinstance(value, tuple):
        return tuple(_at(entry, places, tokens) for entry in value)
    if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[:2] == (1, tokens):
        return value.index_select(1, places)
    return value


def _last_layer(model: PreTrainedModel) -> torch.nn.Module:
    """The last of the blocks that a model is stacked from, by the names that transformers keeps of them."""
    names = set(model._no_split_modules or ())
    # Sharding gives a block a class of its own, below the model's.
    return [module for module in model.modules() if names & {kind.__name__ for kind in type(module).__mro__}][-1]


@torch.no_grad()
def narrowable(model: PreTrainedModel) -> bool:
    """Whether the last layer of a model that attends by packs can be narrowed, as two short rows show."""
    rows, kept = [[1, 2, 3, 4, 5], [6, 7, 8]], [2, 1]
    fed = attention.packed(rows, model.device)
    training = model.training
    model.eval()
    try:
        expected = model(**fed, use_cache=False).logits[0, ends(map(len, rows), kept)]
        with narrowed(model, kept):
            found = model(**fed, use_cache=False).logits[0]
    except (IndexError, KeyError, RuntimeError, TypeError):  # layers that are built another way
        return False
    finally:
        model.train(training)
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-3, rtol=1e-3, equal_nan=True)
