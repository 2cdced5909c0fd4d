"""The saved state from which fine-tuning goes on after a kill, or the next piece of a pre-training: one file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workflow.errors import first_line
from workflow.models import process_group
from workflow.storage.files import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrainingProgress(NamedTuple):
    """Progress of a run: a history row for each step done, and the rows of a batch that fit into memory at once."""

    history: list[dict[str, float]]
    together: int


class State:
    """A fine-tuning run between two optimizer steps, in one file, from which a killed run continues.

    Holds trained weights, AdamW's moments, random states, the progress and the fingerprint of everything that the result
    depends on; a state with another fingerprint is ignored. A thread writes it from a copy, completely or not at all, so
    that later steps need not wait for the disk.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self._copies: dict[str, torch.Tensor] = {}
        self._writer = ThreadPoolExecutor(1, "state")
        self._written: Future[None] | None = None

    def save(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, standing: TrainingProgress) -> None:
        """Replace the saved state by this one; it is on disk once the next save begins or `close` returns."""
        self.close()
        self._copy(_tensors(model, optimizer))
        if process_group.rank_and_size()[0] > 0:
            return
        facts = {"fingerprint": self.fingerprint, "standing": json.dumps(standing._asdict())}
        self._written = self._writer.submit(self._write, facts)

    def close(self) -> None:
        """Wait until the saved state is on disk. Errors: StudyError if it cannot be written."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> TrainingProgress | None:
        """Load a saved state with the same fingerprint into model and optimizer; return its progress, None without one."""
        facts = self.facts()
        if facts.get("fingerprint") != self.fingerprint:
            return None
        with safe_open(self.path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("sha256") != _sha256(tensors, facts):
            self._set_aside("its content does not match its SHA-256")
            return None
        _restore(tensors, model, optimizer)
        return TrainingProgress(**json.loads(facts["standing"]))

    def facts(self) -> dict[str, str]:
        """Return the metadata of the saved state; empty if there is none.

        A damaged file is moved aside and logged, and training starts over.
        """
        if not self.path.is_file():
            return {}
        try:
            with safe_open(self.path, "pt") as file:
                return file.metadata() or {}
        except (SafetensorError, OSError) as error:
            self._set_aside(first_line(error))
            return {}

    def _set_aside(self, reason: str) -> None:
        """Rename a damaged file and log it."""
        with contextlib.suppress(FileNotFoundError):  # another study's tuning was faster
            self.path.rename(self.aside)
        logging.getLogger("tunecast").warning(
            "%s: damaged or cut short (%s); moved to %s; training starts over", self.path, reason, self.aside.name
        )

    @property
    def aside(self) -> Path:
        """Path to which a damaged file is moved."""
        return self.path.with_name(f"{self.path.name}.damaged")

    def remove(self) -> None:
        """Delete the saved state."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.aside.unlink(missing_ok=True)

    def _copy(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Copy tensors to the host's memory, reusing the last copy's memory; only the first of several processes does."""
        for name, tensor in tensors:
            if process_group.rank_and_size()[0] > 0:
                continue
            if name not in self._copies:
                self._copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[name].copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _write(self, facts: Mapping[str, str]) -> None:
        with whole(self.path, sealed=False) as unfinished:  # the state contains its SHA-256
            save_file(self._copies, unfinished, metadata={**facts, "sha256": _sha256(self._copies, facts)})
            # Otherwise a power failure could leave the new name without its content.
            _to_disk(unfinished)
        with contextlib.suppress(OSError):  # some file systems do not support this for folders
            _to_disk(self.path.parent)


def _sha256(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a state's content, independent of the order of its tensors."""
    digest = hashlib.sha256(f"{facts['fingerprint']} {facts['standing']}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f" {name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the trained parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the random generators that dropout uses."""
    states = {"random/cpu": torch.get_rng_state()}
    return states | {"random/cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(states["random/cpu"])
    if "random/cuda" in states:
        torch.cuda.set_rng_state(states["random/cuda"], device)


def write_weights(model: PreTrainedModel, path: Path) -> None:
    """Write the trained weights; all processes gather them, the first one writes."""
    weights = {}
    for name, parameter in trained(model).items():
        weight = process_group.unsharded(parameter.detach())
        if process_group.rank_and_size()[0] == 0:
            weights[name] = weight.cpu()
    if process_group.rank_and_size()[0] == 0:
        save_file(weights, path)


def _tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all tensors of a state with their names, one at a time, since sharded ones are gathered."""
    yield from random_state(model.device).items()
    for name, parameter in trained(model).items():
        yield f"weight/{name}", process_group.unsharded(parameter.detach())
        for key, value in optimizer.state[parameter].items():
            yield f"{key}/{name}", process_group.unsharded(value)


@torch.no_grad()
def _restore(tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """Load the tensors that `_tensors` yields into model and optimizer."""
    set_random_state(tensors, model.device)
    for name, parameter in trained(model).items():
        parameter.copy_(process_group.shard(tensors[f"weight/{name}"], parameter))
        if (
            f"step/{name}" not in tensors
        ):  # never had a gradient, for example an adapter of a layer that is never called
            continue
        moments = {key: process_group.shard(tensors[f"{key}/{name}"], parameter) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": tensors[f"step/{name}"].to(parameter.device)} | moments
