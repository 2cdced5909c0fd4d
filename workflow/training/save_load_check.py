"""Check before fine-tuning that the model, once saved, loaded and evaluated, computes the same as the trained model.

It does not if a merged adapter changes a matrix that another layer shares, or if weights are lost or tied in the file. So noise
is added to the trained weights, the model is saved and loaded as for evaluation, and both models run on the same tokens.
Afterwards the weights are restored bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from workflow.errors import StudyError, first_line, lacks_memory, shown, system_error
from workflow.models import adapters, checkpoints, loading, model_card
from workflow.settings import Base
from workflow.storage.files import refusals
from workflow.training import saved_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOLERANCE = (
    2e-3  # of the standard deviation of the logits; a merge in fp32 differs by 1e-6 to 2e-4, by number of layers
)
NOISE = 0.1  # of a tensor's root mean square
ADAPTED = (
    0.5  # standard deviation of the noise on a tensor of zeros (half of a new adapter): about the size of the weights
)
TOKENS = 32  # of each probe row
PREFIX = "base_model.model."  # what PEFT puts before the names of a model's layers


class LayerOutputs(NamedTuple):
    """A model's logits, shape (tokens, vocabulary), and each layer's output at its first call, in call order."""

    logits: torch.Tensor
    outputs: dict[str, torch.Tensor]


def check(model: PreTrainedModel, base: Base, rows: Sequence[Sequence[int]], scratch: Path) -> float:
    """Return the largest difference between the logits of the trained and the evaluated model, in standard deviations.

    model: as it will be tuned, with adapters if the recipe has them; base: the manifest of its base; rows: token ids;
    scratch: a folder with space for the saved weights, which are deleted again.
    Errors: StudyError naming layers if the difference exceeds TOLERANCE, the model fails, or no adapter is used.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    ids = [list(row[:TOKENS]) for row in rows]
    with refusals(scratch), tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=scratch) as folder:
        unread = _unread(model, ids)
        with disturbed(model, [f"{PREFIX}{name}." for name in unread]):
            trained = layer_outputs(model, ids)
            model.save_pretrained(folder)
        evaluated = layer_outputs(loading.evaluated(base, folder, "fp32", "cpu"), ids)
    difference = _apart(trained.logits, evaluated.logits)
    if not difference <= TOLERANCE:
        raise StudyError(_refusal(model, trained, evaluated, difference))
    return difference


def check_beside(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lineage: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    scratch: Path,
) -> None:
    """Save config, tokenizer and card of a tuned model, and check that the tokenizer gives the same tokens when loaded.

    lineage: as `model_card.card` reads it; rows: token ids of texts; scratch: a folder in which no file is left.
    Errors: StudyError if that fails, or a text becomes different tokens.
    """
    with refusals(scratch), tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=scratch) as folder:
        try:
            model.config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(json.dumps(lineage) + model_card.card(lineage), encoding="utf-8")
            again = checkpoints.load_tokenizer(folder)
        except Exception as error:  # a tokenizer's code may raise anything
            if lacks_memory(error) or system_error(error):
                raise
            raise StudyError(
                f"{_place(model)}: config, tokenizer and card of a tuned model cannot be saved and loaded: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
    if _adapted(model):  # evaluated with the base's own tokenizer
        return
    for text in [str(tokenizer.decode(list(row))) for row in rows]:
        if again(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise StudyError(
                f"{_place(model)}: saved and loaded again, the tokenizer gives other tokens for {shown(text)}; "
                "save it with the installed version of transformers and replace the base's tokenizer by it"
            )


def _unread(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> list[str]:
    """Return the layers with adapters that no row reaches: unused experts, and layers that the model never calls.

    The model uses the weights of the latter directly, so their adapters are never tuned; a log line says so.
    Errors: StudyError if no adapter is reached, or the model fails with them.
    """
    adapted, read = _adapted(model), _first(model, ids).outputs
    unread = [name for name in adapted if name not in read]
    past = sorted({name.rsplit(".", 1)[-1] for name in unread if "expert" not in name})
    message = f"{_place(model)}: {_class(model)} never calls {_some(past)}, so adapters there have no effect"
    if unread and len(unread) == len(adapted):
        raise StudyError(f"{message}, and nothing would be tuned; allowed: layers that the model calls")
    if past:
        logging.getLogger("tunecast").warning("%s; they are not tuned", message)
    return unread


def _first(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> LayerOutputs:
    """Run the unchanged model.

    Errors: StudyError if it fails, for example because a layer's input does not fit its adapters.
    """
    try:
        return layer_outputs(model, ids)
    except Exception as error:  # a model's code may raise anything
        if lacks_memory(error):
            raise
        layers = _some(sorted({name.rsplit(".", 1)[-1] for name in _adapted(model)}), most=20)
        adapted, advice = (f" with adapters on {layers}", "; leave some of them out") if layers else ("", "")
        raise StudyError(
            f"{_place(model)}: {_class(model)}{adapted} fails on a row ({type(error).__name__}: {first_line(error)}){advice}"
        ) from error


@contextlib.contextmanager
def disturbed(model: PreTrainedModel, untrained: Sequence[str] = ()) -> Iterator[None]:
    """Inside, all trained weights have noise added, the same on every device; global random states do not change.

    untrained: prefixes of the names of adapters that no row reaches, which are left unchanged.
    """
    weights = {
        name: weight for name, weight in saved_state.trained(model).items() if not name.startswith(tuple(untrained))
    }
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for weight in weights.values():
                size = NOISE * float(weight.float().square().mean().sqrt()) or ADAPTED
                weight.add_((size * torch.randn(weight.shape, generator=generator)).to(weight))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


@torch.no_grad()
def layer_outputs(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> LayerOutputs:
    """Run a model on rows one by one, in evaluation mode."""
    outputs: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if name not in outputs and isinstance(output, torch.Tensor):
                outputs[name] = output.detach().float().cpu()

        return keep

    hooks = [layer.register_forward_hook(listen(name)) for name, layer in _layers(model)]
    training = model.training
    model.eval()
    try:
        # Otherwise convolutions on a GPU would be less exact than everything else.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            feeds = [torch.tensor([row], device=model.device) for row in rows]
            logits = [model(input_ids=fed, use_cache=False).logits[0].float().cpu() for fed in feeds]
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return LayerOutputs(torch.cat(logits), outputs)


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield layers without sub-layers, and layers with adapters, by their names without PEFT."""
    within = None
    for name, module in model.named_modules():
        if within and name.startswith(within):
            continue
        adapted = hasattr(module, "base_layer")
        within = f"{name}." if adapted else None
        if adapted or not any(True for _ in module.children()):
            yield name.removeprefix(PREFIX), module


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference of two tensors in standard deviations of the second; infinite for other shapes or NaN."""
    if one.shape != other.shape:
        return torch.inf
    difference = float((one - other).abs().max() / other.std(correction=0).clamp(min=1e-12)) if one.numel() else 0.0
    return difference if difference == difference else torch.inf


def _refusal(model: PreTrainedModel, trained: LayerOutputs, evaluated: LayerOutputs, difference: float) -> str:
    """Return the error line, with the layers that cause the difference if they can be determined."""
    message = (
        f"{_place(model)}: the logits of the trained model and of the saved model as it is evaluated differ by {difference:.2g} "
        f"standard deviations, expected at most {TOLERANCE:g}"
    )
    if shared := _sharing(model):
        return (
            f"{message}: {shared} share a weight matrix, and adapters would change only one of its uses; leave it out"
        )
    common = [name for name in evaluated.outputs if name in trained.outputs]
    first = next((name for name in common if _apart(trained.outputs[name], evaluated.outputs[name]) > TOLERANCE), None)
    return f"{message}, from layer {first} on" if first else message


def _place(model: PreTrainedModel) -> str:
    """Return the key of the config that the error is about."""
    return "recipes/lora_modules" if _adapted(model) else f"recipes/method: full tuning of {_class(model)}"


def _class(model: PreTrainedModel) -> str:
    """Return the name of a model's class, without adapters."""
    return type(adapters.without_adapters(model)).__name__


def _adapted(model: PreTrainedModel) -> list[str]:
    """Return the names of layers with adapters."""
    return [name for name, layer in _layers(model) if hasattr(layer, "base_layer")]


def _sharing(model: PreTrainedModel) -> str | None:
    """Return layers that share a weight and some of which have adapters; None if there are none."""
    owners: dict[int, list[str]] = {}
    for name, layer in _layers(model):
        weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
        if isinstance(weight, torch.Tensor):
            owners.setdefault(weight.data_ptr(), []).append(name)
    adapted = set(_adapted(model))
    return next((_some(names) for names in owners.values() if len(names) > 1 and adapted.intersection(names)), None)


def _some(names: Sequence[str], most: int = 4) -> str:
    """Return the first few names."""
    beyond = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + beyond
