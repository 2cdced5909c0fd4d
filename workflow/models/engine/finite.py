"""Detect numbers that are not finite, and find their source in a model.

Every comparison with NaN is false, so a choice, a text or a mean computed from it would look valid.
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
    """A model's scores for a row are not finite; number: the index of the row in the request."""

    def __init__(self, number: int) -> None:
        super().__init__("scores of the model are not finite numbers; see weights and precision")
        self.number = number


def check(scores: torch.Tensor, numbers: Sequence[int]) -> None:
    """Raise NotFiniteError if a row's highest score over the vocabulary is NaN or infinite.

    scores: shape (rows, vocabulary), or (rows,) of the highest; numbers: of the rows. Single scores may be minus infinity,
    since some models exclude tokens.
    """
    highest = scores.amax(dim=1) if scores.dim() > 1 else scores
    finite = torch.isfinite(highest)
    if not bool(finite.all()):
        raise NotFiniteError(numbers[int((~finite).nonzero()[0])])


def source(model: PreTrainedModel, ids: Sequence[int]) -> str:
    """Return a clause for a message on the source of non-finite numbers: weights, or the first layer with such an output."""
    weights = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
    if weights:
        beyond = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
        return f"; weights that are not finite: {weights[0]}{beyond}"
    layer = (
        _first_layer(model, ids) if process_group.rank_and_size()[1] == 1 else None
    )  # a shard's pass takes all processes
    return f"; the first layer whose output is not finite: {layer}" if layer else ""


def _is_finite(tensor: Any) -> bool:
    """Return whether all numbers of a tensor are finite, for a sharded one those of this process."""
    values = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return bool(torch.isfinite(values.detach()).all())


@torch.no_grad()
def _first_layer(model: PreTrainedModel, ids: Sequence[int]) -> str | None:
    """Return the name of the first layer, in the order of the forward pass, whose output for a row is not finite."""
    names: list[str] = []

    def listen(name: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not names and not _is_finite(output):
            names.append(name)

    layers = [(name, layer) for name, layer in model.named_modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(functools.partial(listen, name)) for name, layer in layers]
    try:
        model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return names[0] if names else None
