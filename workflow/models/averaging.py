"""The mean of several checkpoints of one run, weight by weight (arXiv 2505.12082, arXiv 2507.17634)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workflow.errors import StudyError
from workflow.models import checkpoints
from workflow.settings import Base
from workflow.storage.files import json_object, whole, write_json


def write(bases: Sequence[Base], folder: Path) -> None:
    """Write the mean of checkpoints as a checkpoint: config, tokenizer and split into files as the last one has them.

    Each mean is taken in fp64 and rounded once, to fp32; of fp64 weights it stays fp64. Means of bf16 weights are stored in fp32,
    since rounding them back would undo part of the averaging.
    bases: their manifests, in the order of steps. Errors: StudyError if their weights or tokenizers differ in kind.
    """
    last, paths = bases[-1], [Path(base["path"]) for base in bases]
    _check_tokenizers(bases)
    with whole(folder) as unfinished, contextlib.ExitStack() as stack:
        for base in bases:
            stack.enter_context(checkpoints.verified(base))
        unfinished.mkdir()
        opened = [_tensors(path, stack) for path in paths]
        _check_names(paths, opened)
        for name in sorted(last["files"]):
            if not name.endswith(".safetensors"):
                shutil.copyfile(paths[-1] / name, unfinished / name)
        size = sum(_write_file(file, opened, unfinished) for file in checkpoints.weight_files(paths[-1]))
        if (index := unfinished / checkpoints.INDEX).is_file():
            listed = json_object(index)
            write_json({**listed, "metadata": {**listed.get("metadata", {}), "total_size": size}}, index)


def _check_tokenizers(bases: Sequence[Base]) -> None:
    """Raise StudyError unless all checkpoints have the same tokenizer files."""
    for name in ("tokenizer.json", "vocab.json"):
        records = [base["files"].get(name) for base in bases]
        if any(record != records[0] for record in records):
            steps = ", ".join(str(base["step"]) for base in bases)
            raise StudyError(f"{bases[-1]['path']}: {name} differs between the steps {steps}, which cannot be averaged")


def _tensors(folder: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return for each tensor of a checkpoint the open file that it is in."""
    from safetensors import safe_open

    files = [stack.enter_context(safe_open(path, "pt")) for path in checkpoints.weight_files(folder)]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def _check_names(paths: Sequence[Path], opened: Sequence[dict[str, Any]]) -> None:
    """Raise StudyError unless all checkpoints have the same tensors in the same shapes."""
    for path, tensors in zip(paths, opened, strict=True):
        for name in sorted(set(tensors) ^ set(opened[-1])):
            raise StudyError(f"{path}: cannot be averaged with {paths[-1]}: only one of them has the weights {name}")
        for name, file in tensors.items():
            shape, other = file.get_slice(name).get_shape(), opened[-1][name].get_slice(name).get_shape()
            if shape != other:
                raise StudyError(f"{path}: {name} has shape {shape}; expected {other}, as in {paths[-1]}")


def _write_file(path: Path, opened: Sequence[dict[str, Any]], folder: Path) -> int:
    """Write the means of the tensors of one weight file of the last checkpoint; return their bytes."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        means, metadata = dict(_means(list(file.keys()), opened)), file.metadata()
    save_file(means, folder / path.name, metadata)
    return sum(mean.numel() * mean.element_size() for mean in means.values())


def _means(names: Sequence[str], opened: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield each tensor's mean; integers, such as masks, are those of the last checkpoint."""
    import torch

    for name in names:
        newest = opened[-1][name].get_tensor(name)
        if not newest.is_floating_point():
            yield name, newest
            continue
        total = torch.zeros(newest.shape, dtype=torch.float64)
        for tensors in opened:
            total += tensors[name].get_tensor(name)
        kept = torch.float64 if newest.dtype == torch.float64 else torch.float32
        yield name, (total / len(opened)).to(kept)
