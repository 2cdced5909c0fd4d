"""Before a tuning: would the model that is saved, loaded and evaluated afterwards compute what is trained?

It would not where a merged adapter changes a matrix that something else shares, or where weights are lost or tied on their
way through the file. So the trained weights are disturbed as a tuning would change them, saved, loaded as for an
evaluation, and both models read the same tokens. The weights then are what they were, to the bit.
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
from workflow.models import checkpoints, loading, model_card
from workflow.models.engine.reading import out_of_memory
from workflow.storage.files import refusals
from workflow.training import saved_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOLERANCE = (
    2e-3  # of the standard deviation of the logits; a merge in fp32 costs 1e-6 to 2e-4 of it, by the number of layers
)
NOISE = 0.1  # of a tensor's root mean square
ADAPTED = (
    0.5  # standard deviation of noise on a tensor of zeros, as half of a new adapter is: about the size of the weights
)
TOKENS = 32  # of each probe row
PREFIX = "base_model.model."  # what PEFT puts before the names of a model's layers


class Heard(NamedTuple):
    """What a model computes: logits, shape (tokens, vocabulary), and each layer's output at its first call, in this order."""

    logits: torch.Tensor
    outputs: dict[str, torch.Tensor]


def check(model: PreTrainedModel, base: Mapping[str, Any], rows: Sequence[Sequence[int]], place: Path) -> float:
    """The largest difference between the logits of the trained model and of the evaluated one, in standard deviations.

    model: as it is to be tuned, with adapters where there are some; base: the manifest of what it was loaded from; rows:
    token ids; place: a folder with room for the weights that are saved, where nothing is left.
    Errors: StudyError naming layers where the difference exceeds TOLERANCE, the model fails, or no adapter is read.
    """
    place.mkdir(parents=True, exist_ok=True)
    ids = [list(row[:TOKENS]) for row in rows]
    with refusals(place), tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=place) as folder:
        unread = _unread(model, ids)
        with disturbed(model, [f"{PREFIX}{name}." for name in unread]):
            trained = heard(model, ids)
            model.save_pretrained(folder)
        evaluated = heard(loading.evaluated(base, folder, "fp32", "cpu"), ids)
    difference = _apart(trained.logits, evaluated.logits)
    if not difference <= TOLERANCE:
        raise StudyError(_refusal(model, trained, evaluated, difference))
    return difference


def check_beside(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lineage: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    place: Path,
) -> None:
    """Save what a tuned model has beside its weights, and load its tokenizer again, which is to read as it did.

    lineage: as `model_card.card` reads it; rows: token ids of texts to read; place: a folder in which nothing is left.
    Errors: StudyError where that fails, or a text becomes other tokens.
    """
    with refusals(place), tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=place) as folder:
        try:
            model.config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(json.dumps(lineage) + model_card.card(lineage), encoding="utf-8")
            again = checkpoints.load_tokenizer(folder)
        except Exception as error:  # whatever a tokenizer's own code raises
            if lacks_memory(error) or system_error(error):
                raise
            raise StudyError(
                f"{_place(model)}: what is saved with a tuned model cannot be: {type(error).__name__}: {first_line(error)}"
            ) from error
    if _adapted(model):  # evaluated with the base's own tokenizer
        return
    for text in map(tokenizer.decode, rows):
        if again(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise StudyError(
                f"{_place(model)}: saved and loaded again, the tokenizer cuts {shown(text)} into other tokens; "
                "save it with the version of transformers that is installed here, and put it in place of the base's"
            )


def _unread(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> list[str]:
    """Layers with adapters that no row passes through: experts that no row is sent to, or layers that the model does not call.

    Of the latter the model reads the weight itself. Their adapters stay as they are, whatever is tuned, and the log says so.
    Errors: StudyError where no adapter is read, or the model fails with them.
    """
    adapted, read = _adapted(model), _first(model, ids).outputs
    unread = [name for name in adapted if name not in read]
    past = sorted({name.rsplit(".", 1)[-1] for name in unread if "expert" not in name})
    told = f"{_place(model)}: {_class(model)} reads the weights of {_some(past)} itself, past their adapters"
    if unread and len(unread) == len(adapted):
        raise StudyError(f"{told}, so that nothing would be tuned; allowed: layers that it calls")
    if past:
        logging.getLogger("tunecast").warning("%s, which stay as they are", told)
    return unread


def _first(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> Heard:
    """What a model computes before anything is changed.

    Errors: StudyError where it cannot, as where a layer does not give what its adapters take.
    """
    try:
        return heard(model, ids)
    except Exception as error:  # whatever a model's own code raises
        if out_of_memory(error):
            raise
        layers = _some(sorted({name.rsplit(".", 1)[-1] for name in _adapted(model)}), most=20)
        adapted, advice = (f" with adapters on {layers}", "; leave some of them out") if layers else ("", "")
        raise StudyError(
            f"{_place(model)}: {_class(model)}{adapted} fails on a row ({type(error).__name__}: {first_line(error)}){advice}"
        ) from error


@contextlib.contextmanager
def disturbed(model: PreTrainedModel, untrained: Sequence[str] = ()) -> Iterator[None]:
    """Inside, noise is on all weights that a tuning changes, the same on every device; global random states stay.

    untrained: beginnings of the names of adapters that no row passes through, so that no tuning changes them either.
    """
    weights = {name: own for name, own in saved_state.trained(model).items() if not name.startswith(tuple(untrained))}
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
def heard(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Heard:
    """What a model computes of rows that are fed one after the other, in evaluation mode."""
    outputs: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        def keep(module: torch.nn.Module, given: Any, output: Any) -> None:
            if name not in outputs and isinstance(output, torch.Tensor):
                outputs[name] = output.detach().float().cpu()

        return keep

    hooks = [layer.register_forward_hook(listen(name)) for name, layer in _layers(model)]
    training = model.training
    model.eval()
    try:
        # Convolutions on a GPU would otherwise be less exact than all the rest.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            feeds = [torch.tensor([row], device=model.device) for row in rows]
            logits = [model(input_ids=fed, use_cache=False).logits[0].float().cpu() for fed in feeds]
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Heard(torch.cat(logits), outputs)


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Layers without parts, and those with adapters, by the names that they have without PEFT."""
    within = None
    for name, module in model.named_modules():
        if within and name.startswith(within):
            continue
        adapted = hasattr(module, "base_layer")
        within = f"{name}." if adapted else None
        if adapted or not any(True for _ in module.children()):
            yield name.removeprefix(PREFIX), module


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two tensors in standard deviations of the second; infinite for other shapes or NaN."""
    if one.shape != other.shape:
        return torch.inf
    found = float((one - other).abs().max() / other.std(correction=0).clamp(min=1e-12)) if one.numel() else 0.0
    return found if found == found else torch.inf


def _refusal(model: PreTrainedModel, trained: Heard, evaluated: Heard, difference: float) -> str:
    """What to say, with the layers that the difference comes from as far as they can be told."""
    found = (
        f"{_place(model)}: the logits of what is trained and of what is saved and evaluated differ by {difference:.2g} "
        f"standard deviations, expected at most {TOLERANCE:g}"
    )
    if shared := _sharing(model):
        return f"{found}: {shared} share a matrix, of which adapters would change one use alone; leave it out"
    common = [name for name in evaluated.outputs if name in trained.outputs]
    first = next((name for name in common if _apart(trained.outputs[name], evaluated.outputs[name]) > TOLERANCE), None)
    return f"{found}, from layer {first} on" if first else found


def _place(model: PreTrainedModel) -> str:
    """The key of the config that a refusal is about."""
    return "recipes/lora_modules" if _adapted(model) else f"recipes/method: full tuning of {_class(model)}"


def _class(model: PreTrainedModel) -> str:
    """The name of a model's class, of adapters that of the model they sit in."""
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__


def _adapted(model: PreTrainedModel) -> list[str]:
    """Layers with adapters."""
    return [name for name, layer in _layers(model) if hasattr(layer, "base_layer")]


def _sharing(model: PreTrainedModel) -> str | None:
    """Layers that share a weight and of which some have adapters; None where there are none."""
    owners: dict[int, list[str]] = {}
    for name, layer in _layers(model):
        weight = getattr(getattr(layer, "base_layer", layer), "weight", None)
        if isinstance(weight, torch.Tensor):
            owners.setdefault(weight.data_ptr(), []).append(name)
    adapted = set(_adapted(model))
    return next((_some(names) for names in owners.values() if len(names) > 1 and adapted.intersection(names)), None)


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few names."""
    beyond = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + beyond
