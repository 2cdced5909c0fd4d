"""Models in memory and on disk: untouched bases, tuned models, their lineage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workflow.errors import StudyError
from workflow.models import checkpoints, model_card
from workflow.storage import checksums
from workflow.storage.files import dumped, json_object, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LINEAGE = "lineage.json"


def device() -> str:
    """The GPU that the job was given, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe() -> str:
    """What the job computes on, for its log."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{name}, {torch.get_num_threads()} threads"


def untouched(
    base: Mapping[str, Any], dtype: str = "fp32", place: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A base and its tokenizer, in evaluation mode, on the job's device if no other place is named.

    Errors: StudyError when its files cannot be loaded, or are not those that its manifest lists.
    """
    folder = Path(base["path"])
    with checkpoints.verified(base):
        return checkpoints.load_model(folder, DTYPES[dtype], place or device()).eval(), checkpoints.load_tokenizer(
            folder
        )


def ready(
    base: Mapping[str, Any], tuned: str | None, dtype: str, place: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that a cell evaluates, and its tokenizer: that of the folder which holds the full weights.

    Errors: StudyError for weights that are not as they were saved, or were tuned from another base.
    """
    if tuned is not None:
        checksums.check(tuned)
        _check_lineage(base, Path(tuned))
    whole = tuned if tuned is not None and not _is_adapter(tuned) else base["path"]
    return evaluated(base, tuned, dtype, place), checkpoints.load_tokenizer(whole)


def evaluated(
    base: Mapping[str, Any], tuned: Path | str | None, dtype: str, place: str | None = None
) -> PreTrainedModel:
    """The untouched base, the tuned weights of a folder, or the base with a folder's adapters merged; in evaluation mode.

    Errors: StudyError when the base's files are not those that its manifest lists.
    """
    folder = tuned if tuned is not None and not _is_adapter(tuned) else base["path"]
    with checkpoints.verified(base if folder == base["path"] else {"path": folder}):
        model = checkpoints.load_model(folder, DTYPES[dtype], place or device())
    if tuned is None or not _is_adapter(tuned):
        return model.eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(model, tuned).merge_and_unload().eval()


def _is_adapter(folder: Path | str) -> bool:
    """Whether a folder of a tuned model holds adapters alone."""
    return (Path(folder) / checkpoints.ADAPTER).is_file()


def adapters(tuned: str | None) -> dict[str, int] | None:
    """How many weights the adapters of a tuned model reach (`adapters.reach`), as its lineage says; None of other models."""
    lineage = Path(tuned or "") / LINEAGE
    return json_object(lineage).get("adapters") if tuned and lineage.is_file() else None


def _check_lineage(base: Mapping[str, Any], tuned: Path) -> None:
    """StudyError unless tuned weights are those of a model tuned from this base."""
    path = tuned / LINEAGE
    if path.is_file() and "files" in base and json_object(path)["base"]["files"] != base["files"]:
        raise StudyError(
            f"{path}: was tuned from another base than the one at {base['path']}; delete {tuned} and run again"
        )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, lineage: Mapping[str, Any]) -> None:
    """Write weights (of LoRA the adapters alone), tokenizer, lineage and card as a folder, whole or not at all.

    lineage: as `model_card.card` reads it. Adapters name the base that they belong to, which PEFT loads first: on the hub by
    repository and revision, so that they load on any machine, else by its folder as seen from the study's.
    """
    with whole(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        adapter = unfinished / checkpoints.ADAPTER
        if adapter.is_file():
            known = json.loads(adapter.read_text(encoding="utf-8"))
            known |= _named(lineage["base"], known["base_model_name_or_path"])
            adapter.write_text(dumped(known), encoding="utf-8")
        (unfinished / LINEAGE).write_text(dumped(lineage), encoding="utf-8")
        (unfinished / "README.md").write_text(
            model_card.card(lineage), encoding="utf-8"
        )  # in place of the libraries' own


def _named(base: Mapping[str, Any], path: str) -> dict[str, str]:
    """The keys of an adapter's config that say which base it belongs to, of one that was loaded from a path."""
    if base["repo"]:
        return {"base_model_name_or_path": base["repo"], "revision": base["revision"]}
    # From the working directory, as PEFT reads it; never absolute, since whole paths name their owner.
    return {"base_model_name_or_path": os.path.relpath(path)}
