"""Numbers that are not finite, and where in a model they come from.

Of NaN every comparison is false, so that a choice, a text or a mean made of it would look like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from workflow.errors import StudyError
from workflow.models import process_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NotFiniteError(StudyError):
    """What a model gives for a row is not finite; number: the row's place among those that were asked for."""

    def __init__(self, number: int) -> None:
        super().__init__("scores of the model are not finite numbers; see weights and precision")
        self.number = number


def check(scores: torch.Tensor, numbers: Sequence[int]) -> None:
    """NotFiniteError where the highest score over the vocabulary is not finite, as where one is NaN or infinite.

    scores: shape (rows, vocabulary), or (rows,) of the highest; numbers: of each row. Of some models single tokens never
    come, their score is minus infinity.
    """
    highest = scores.amax(dim=1) if scores.dim() > 1 else scores
    finite = torch.isfinite(highest)
    if not bool(finite.all()):
        raise NotFiniteError(numbers[int((~finite).nonzero()[0])])


def source(model: PreTrainedModel, ids: Sequence[int]) -> str:
    """Where numbers that are not finite come from, to be added to a message: weights, or the first layer to give them."""
    weights = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
    if weights:
        beyond = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        return f"; weights that are not finite: {weights[0]}{beyond}"
    layer = _first_layer(model, ids) if process_group.place()[1] == 1 else None  # a shard's pass takes all processes
    return f"; the first layer whose output is not finite: {layer}" if layer else ""


def _is_finite(tensor: Any) -> bool:
    """Whether all numbers of a tensor are finite, of one in shards those that are here."""
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return bool(torch.isfinite(own.detach()).all())


@torch.no_grad()
def _first_layer(model: PreTrainedModel, ids: Sequence[int]) -> str | None:
    """The name of the first layer, in the order of the forward pass, whose output for a row is not finite."""
    found: list[str] = []

    def listen(name: str, module: torch.nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not found and not _is_finite(output):
            found.append(name)

    layers = [(name, layer) for name, layer in model.named_modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(functools.partial(listen, name)) for name, layer in layers]
    try:
        model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
