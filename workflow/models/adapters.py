"""Low-rank adapters (LoRA): the layers that can take them, and how many weights they reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the linear layers of a model by name: torch's, and GPT-2's, whose matrix is transposed.

    If some layers have adapters already, names and layers are those without adapters.
    """
    from transformers.pytorch_utils import Conv1D

    return {
        name.removesuffix(".base_layer"): layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and ".lora_" not in name
    }


def without_adapters(model: torch.nn.Module) -> PreTrainedModel:
    """Return the model that adapters sit in; of a model without adapters, the model."""
    inner = getattr(model, "get_base_model", None)
    return cast("PreTrainedModel", model if inner is None else inner())


def allowed(model: PreTrainedModel) -> list[str]:
    """Return the names allowed in `lora_modules`: last parts of the names of layers that PEFT adapts and the model calls.

    Layers whose weight the model uses without calling them are left out, and so is an output layer tied to the embedding.
    Runs the model once.
    """
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = output is not None and embedding is not None and output.weight is embedding.weight
    called = [name for name, layer in _called(model) if not (tied and layer is output)]
    ends = sorted({name.rsplit(".", 1)[-1] for name in called})
    return [end for end in ends if _takes(model, end)]


@torch.no_grad()
def _called(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """Return the linear layers that a forward pass calls, by name."""
    called: set[torch.nn.Module] = set()
    layers = linear(model)
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: called.add(module)) for layer in layers.values()
    ]
    try:
        model(input_ids=torch.tensor([[1, 2, 3, 4]], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    yield from ((name, layer) for name, layer in layers.items() if layer in called)


def _takes(model: PreTrainedModel, end: str) -> bool:
    """Return whether PEFT can adapt the layers of a name; tried on a model without weights."""
    from peft import LoraConfig, get_peft_model

    try:
        with torch.device("meta"):
            skeleton = type(model)(model.config)
            get_peft_model(skeleton, LoraConfig(r=1, target_modules=[end], task_type="CAUSAL_LM"))
    except Exception:  # any error here would also be raised for the model itself
        return False
    return True


def width(model: torch.nn.Module) -> int:
    """Return the largest rank that an adapter can have: the shorter side of the largest matrix with adapters."""
    return max(min(_adapted(part).shape[-2:]) for part in model.modules() if hasattr(part, "base_layer"))


def reach(model: torch.nn.Module) -> dict[str, Any]:
    """Count the weights of a model with adapters: `layers` (all but embeddings), `reached` by adapters, `experts` not reached.

    Experts are the matrices of a mixture of experts, by transformers' names.
    """
    inner = without_adapters(model)
    embeddings = {id(layer.weight) for layer in (inner.get_input_embeddings(), inner.get_output_embeddings()) if layer}
    reached = {id(_adapted(part)) for part in model.modules() if hasattr(part, "base_layer")}
    counts = {"layers": 0, "reached": 0, "experts": 0}
    for name, weight in model.named_parameters():
        if "lora_" in name or (id(weight) in embeddings and id(weight) not in reached):
            continue
        counts["layers"] += weight.numel()
        counts["reached"] += weight.numel() if id(weight) in reached else 0
        counts["experts"] += weight.numel() if "experts" in name and id(weight) not in reached else 0
    return counts


def _adapted(layer: torch.nn.Module) -> torch.Tensor:
    """Return the matrix that a layer's adapters change: its weight, or a parameter that PEFT wraps by name (experts)."""
    parameter = getattr(layer, "get_param", None)
    weight: torch.Tensor = parameter() if parameter is not None else getattr(layer, "base_layer").weight  # noqa: B009
    return weight
