"""What a killed tuning continues from: one file, written beside the work that goes on."""

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


class Standing(NamedTuple):
    """How far a tuning has come: a row for each step done, and how many rows of a batch it puts through at once."""

    history: list[dict[str, float]]
    together: int


class State:
    """A tuning between two optimizer steps, in one file: what a killed run continues from.

    Holds trained weights, AdamW's moments, random states, the standing and the fingerprint of all that the result
    depends on; a state with another fingerprint is not continued from. Written whole or not at all, by a thread of its
    own from a copy, so that the steps after it need not wait for the disk.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self._copies: dict[str, torch.Tensor] = {}
        self._writer = ThreadPoolExecutor(1, "state")
        self._written: Future[None] | None = None

    def save(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, standing: Standing) -> None:
        """Replace the saved state by this one; it is on the disk once the next save begins or `close` returns."""
        self.close()
        self._copy(_tensors(model, optimizer))
        if process_group.place()[0] > 0:
            return
        facts = {"fingerprint": self.fingerprint, "standing": json.dumps(standing._asdict())}
        self._written = self._writer.submit(self._write, facts)

    def close(self) -> None:
        """Wait until what was saved is on the disk. Errors: StudyError when it cannot be written."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Standing | None:
        """Put a saved state that fits into model and optimizer; None when there is none."""
        facts = self.facts()
        if facts.get("fingerprint") != self.fingerprint:
            return None
        with safe_open(self.path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("sha256") != _sha256(tensors, facts):
            self._set_aside("its content does not match its SHA-256")
            return None
        _restore(tensors, model, optimizer)
        return Standing(**json.loads(facts["standing"]))

    def facts(self) -> dict[str, str]:
        """What is noted with the saved state; nothing where there is none.

        A file that is no whole state is set aside, with a line in the log: the tuning begins anew.
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
        """Keep a file that is no whole state under another name, with a line in the log."""
        with contextlib.suppress(FileNotFoundError):  # another study's tuning was faster
            self.path.rename(self.aside)
        logging.getLogger("tunecast").warning(
            "%s: damaged or cut short (%s); set aside as %s, tuning begins anew", self.path, reason, self.aside.name
        )

    @property
    def aside(self) -> Path:
        """Where a file is put that is no whole state."""
        return self.path.with_name(f"{self.path.name}.damaged")

    def remove(self) -> None:
        """Forget the saved state."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.aside.unlink(missing_ok=True)

    def _copy(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Copy tensors to the host's memory, into the places of the copy before; the first of several processes does."""
        for name, tensor in tensors:
            if process_group.place()[0] > 0:
                continue
            if name not in self._copies:
                self._copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[name].copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _write(self, facts: Mapping[str, str]) -> None:
        with whole(self.path, sealed=False) as unfinished:  # a state holds its SHA-256 itself
            save_file(self._copies, unfinished, metadata={**facts, "sha256": _sha256(self._copies, facts)})
            # A machine that loses its power could else keep the new name without what it stands for.
            _to_disk(unfinished)
        with contextlib.suppress(OSError):  # some file systems know no such thing of a folder
            _to_disk(self.path.parent)


def _sha256(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 of all that a state holds, whatever the order of its tensors."""
    found = hashlib.sha256(f"{facts['fingerprint']} {facts['standing']}".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f" {name} {tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Parameters that tuning changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """States of the generators that dropout draws from."""
    states = {"random/cpu": torch.get_rng_state()}
    return states | {"random/cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def set_random_state(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(states["random/cpu"])
    if "random/cuda" in states:
        torch.cuda.set_rng_state(states["random/cuda"], device)


def write_weights(model: PreTrainedModel, path: Path) -> None:
    """Write the weights that tuning changes; the first of several processes does, put together by all of them."""
    weights = {}
    for name, parameter in trained(model).items():
        weight = process_group.whole(parameter.detach())
        if process_group.place()[0] == 0:
            weights[name] = weight.cpu()
    if process_group.place()[0] == 0:
        save_file(weights, path)


def _tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """Everything of a state that is a tensor, with its name; one at a time, since of shards each is put together."""
    yield from random_state(model.device).items()
    for name, parameter in trained(model).items():
        yield f"weight/{name}", process_group.whole(parameter.detach())
        for key, value in optimizer.state[parameter].items():
            yield f"{key}/{name}", process_group.whole(value)


@torch.no_grad()
def _restore(tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of `_tensors`."""
    set_random_state(tensors, model.device)
    for name, parameter in trained(model).items():
        parameter.copy_(process_group.shard(tensors[f"weight/{name}"], parameter))
        if f"step/{name}" not in tensors:  # never had a gradient, as adapters of a layer that is not called
            continue
        moments = {key: process_group.shard(tensors[f"{key}/{name}"], parameter) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": tensors[f"step/{name}"].to(parameter.device)} | moments
