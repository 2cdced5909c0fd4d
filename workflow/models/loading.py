"""Load and save models: bases, fine-tuned models and their lineage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workflow.errors import StudyError, first_line, lacks_memory
from workflow.models import checkpoints, model_card, tuned_elsewhere
from workflow.settings import Base
from workflow.storage import checksums
from workflow.storage.files import dumped, json_object, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LINEAGE = tuned_elsewhere.LINEAGE


def device() -> str:
    """Return the job's GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe() -> str:
    """Return the name of the device and the number of threads, for the job's log."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{name}, {torch.get_num_threads()} threads"


def untouched(
    base: Base, dtype: str = "fp32", device_name: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base and its tokenizer, in evaluation mode. device_name: a device instead of the job's.

    Errors: StudyError if its files cannot be loaded, or differ from its manifest.
    """
    folder = Path(base["path"])
    with checkpoints.verified(base):
        return checkpoints.load_model(
            folder, DTYPES[dtype], device_name or device()
        ).eval(), checkpoints.load_tokenizer(folder)


def ready(
    base: Base, tuned: str | None, dtype: str, device_name: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that a cell evaluates, and the tokenizer from the folder with the full weights.

    Errors: StudyError for weights that have changed since they were saved, or were tuned from another base.
    """
    if tuned is not None:
        checksums.check(tuned)
        _check_lineage(base, Path(tuned))
    whole = tuned if tuned is not None and not _is_adapter(tuned) else base["path"]
    return evaluated(base, tuned, dtype, device_name), checkpoints.load_tokenizer(whole)


def evaluated(base: Base, tuned: Path | str | None, dtype: str, device_name: str | None = None) -> PreTrainedModel:
    """Load the base, the tuned weights of a folder, or the base with a folder's adapters merged; in evaluation mode.

    Errors: StudyError if the base's files differ from its manifest.
    """
    folder = tuned if tuned is not None and not _is_adapter(tuned) else base["path"]
    with checkpoints.verified(base) if folder == base["path"] else contextlib.nullcontext():
        model = checkpoints.load_model(folder, DTYPES[dtype], device_name or device())
    if tuned is None or not _is_adapter(tuned):
        return model.eval()
    return _merged(model, Path(tuned)).eval()


def _merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return a base with the adapters of a folder merged into its weights.

    Errors: StudyError unless each weight of the adapters has a place in the model and each place a weight: PEFT goes on
    with adapters that do nothing.
    """
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / tuned_elsewhere.WEIGHTS
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        stored = load_file(path)
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        loaded: Any = set_peft_model_state_dict(adapted, stored)
        unexpected = loaded.unexpected_keys
    except StudyError:
        raise
    except Exception as error:  # PEFT raises all kinds on settings and weights that do not fit
        if lacks_memory(error):
            raise
        raise StudyError(f"{folder}: the adapters cannot be loaded: {first_line(error)}") from error
    for kind, keys in (("missing", expected - set(stored)), ("unexpected", unexpected)):
        if keys:
            raise StudyError(f"{path}: does not fit its base: {len(keys)} {kind}, such as {min(keys)}")
    return adapted.merge_and_unload()


def _is_adapter(folder: Path | str) -> bool:
    """Return whether the folder of a tuned model holds adapters only."""
    return (Path(folder) / checkpoints.ADAPTER).is_file()


def adapters(tuned: str | None) -> dict[str, int] | None:
    """Return how many weights a tuned model's adapters reach (`adapters.reach`), from its lineage; None for other models."""
    lineage = Path(tuned or "") / LINEAGE
    return json_object(lineage).get("adapters") if tuned and lineage.is_file() else None


def _check_lineage(base: Base, tuned: Path) -> None:
    """Raise StudyError unless the weights were tuned from this base."""
    path = tuned / LINEAGE
    if path.is_file() and "files" in base and json_object(path)["base"]["files"] != base["files"]:
        raise StudyError(
            f"{path}: was tuned from another base than the one at {base['path']}; delete {tuned} and run again"
        )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write weights (for LoRA the adapters only), tokenizer, lineage and card to a folder, completely or not at all.

    lineage: as `model_card.card` reads it. Adapters name their base, which PEFT loads first: one on the hub by repository
    and revision, so that they load on any machine, another by its folder relative to the study's.
    """
    with whole(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        adapter = unfinished / checkpoints.ADAPTER
        if adapter.is_file():
            settings = json.loads(adapter.read_text(encoding="utf-8"))
            settings |= _named(lineage["base"], settings["base_model_name_or_path"])
            adapter.write_text(dumped(settings), encoding="utf-8")
        (unfinished / LINEAGE).write_text(dumped(lineage), encoding="utf-8")
        (unfinished / "README.md").write_text(
            model_card.card(lineage), encoding="utf-8"
        )  # in place of the libraries' own


def save_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, tuned: Path) -> None:
    """Write full weights as safetensors with their tokenizer, completely or not at all, beside the lineage of the tuned model."""
    with whole(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        shutil.copyfile(tuned / LINEAGE, unfinished / LINEAGE)


def _named(base: Base, path: str) -> dict[str, str]:
    """Return the keys of an adapter's config that name its base, which was loaded from `path`."""
    if base["repo"] and base["revision"]:
        return {"base_model_name_or_path": base["repo"], "revision": base["revision"]}
    # Relative to the working directory, as PEFT reads it; never absolute, since absolute paths name their owner.
    return {"base_model_name_or_path": os.path.relpath(path)}
