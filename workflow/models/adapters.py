"""Low-rank adapters in a model: where they may be put, and how many of its weights they reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers that are a matrix product, by name: torch's, and those of GPT-2 whose matrix is the other way round.

    Where adapters were put on some before others were refused, names and layers are those without adapters.
    """
    from transformers.pytorch_utils import Conv1D

    return {
        name.removesuffix(".base_layer"): layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and ".lora_" not in name
    }


def allowed(model: PreTrainedModel) -> list[str]:
    """Names for `lora_modules`: last parts of the names of layers that PEFT adapts and the model calls.

    Left out are layers whose weight the model reads by itself, past any adapter, and an output layer that shares its matrix
    with the embedding. The model is read once.
    """
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = output is not None and embedding is not None and output.weight is embedding.weight
    found = [name for name, layer in _called(model) if not (tied and layer is output)]
    ends = sorted({name.rsplit(".", 1)[-1] for name in found})
    return [end for end in ends if _takes(model, end)]


@torch.no_grad()
def _called(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """The matrix products that a forward pass goes through as layers, by name."""
    called: set[torch.nn.Module] = set()
    layers = linear(model)
    hooks = [layer.register_forward_hook(lambda module, given, output: called.add(module)) for layer in layers.values()]
    try:
        model(input_ids=torch.tensor([[1, 2, 3, 4]], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    yield from ((name, layer) for name, layer in layers.items() if layer in called)


def _takes(model: PreTrainedModel, end: str) -> bool:
    """Whether PEFT puts adapters on the layers of a name, tried on a model without weights."""
    from peft import LoraConfig, get_peft_model

    try:
        with torch.device("meta"):
            skeleton = type(model)(model.config)
            get_peft_model(skeleton, LoraConfig(r=1, target_modules=[end], task_type="CAUSAL_LM"))
    except Exception:  # whatever it is, it would be raised for the model as well
        return False
    return True


def width(model: torch.nn.Module) -> int:
    """The largest rank that a change of a matrix with adapters can have: the shorter side of the largest such matrix."""
    return max(min(_adapted(part).shape[-2:]) for part in model.modules() if hasattr(part, "base_layer"))


def reach(model: torch.nn.Module) -> dict[str, Any]:
    """Weights that a model with adapters has: `layers` (all but embeddings), `reached` by adapters, `experts` not reached.

    Experts are matrices of a mixture of experts, by the names that transformers gives them.
    """
    inner = model.get_base_model()
    embeddings = {id(layer.weight) for layer in (inner.get_input_embeddings(), inner.get_output_embeddings()) if layer}
    reached = {id(_adapted(part)) for part in model.modules() if hasattr(part, "base_layer")}
    found = {"layers": 0, "reached": 0, "experts": 0}
    for name, weight in model.named_parameters():
        if "lora_" in name or (id(weight) in embeddings and id(weight) not in reached):
            continue
        found["layers"] += weight.numel()
        found["reached"] += weight.numel() if id(weight) in reached else 0
        found["experts"] += weight.numel() if "experts" in name and id(weight) not in reached else 0
    return found


def _adapted(layer: torch.nn.Module) -> torch.Tensor:
    """The matrix that adapters of a layer change: its weight, or a parameter that PEFT wraps by name, as those of experts."""
    return layer.get_param() if hasattr(layer, "get_param") else layer.base_layer.weight
