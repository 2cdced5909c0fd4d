"""Fine-tune a model that is sharded over several GPUs of one machine (see `models.sharding`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from workflow.jobs.processes import Progress
from workflow.models import checkpoints, sharding
from workflow.models.encoding import Masked
from workflow.settings import Recipe
from workflow.training import finetuning, saved_state
from workflow.training.finetuning import History
from workflow.training.saved_state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODULE = "workflow.training.multi_gpu"  # `__name__` is `__main__` in the processes
WEIGHTS = "weights.safetensors"


def tune(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Recipe,
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> History:
    """Fine-tune a model in the host's memory in place, as `finetuning.tune` does.

    model: as loaded from `model.name_or_path`, with adapters if the recipe has them.
    Errors: as `finetuning.tune`; RuntimeError if a process ended unexpectedly.
    """
    work = _tuning(model, rows, [], recipe, seed, pad, state)
    with sharding.done(MODULE, work, recipe["gpus"], _beside(state), progress) as (history, folder):
        take_weights(model, folder / WEIGHTS)
    return history


def tune_and_validate(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    validation: Sequence[Masked],
    recipe: Recipe,
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float | None]]:
    """Return validation losses as `finetuning.tune_and_validate` does; the given model stays unchanged."""
    work = _tuning(model, rows, validation, recipe, seed, pad, state)
    with sharding.done(MODULE, work, recipe["gpus"], _beside(state), progress) as (losses, _):
        return losses


def _tuning(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    held: Sequence[Masked],
    recipe: Recipe,
    seed: int,
    pad: int,
    state: State,
) -> dict[str, Any]:
    """Return a fine-tuning run as work for the processes; a damaged state is reported here, where there is a log."""
    state.facts()
    location = {"base": model.name_or_path, "state": str(state.path), "fingerprint": state.fingerprint}
    return {"rows": rows, "held": held, "recipe": dict(recipe), "seed": seed, "pad": pad, **location}


def _beside(state: State) -> Path:
    """Return the path for files of the processes: on the state's disk, since they include weights."""
    return state.path.with_name(f"{state.path.name}.shards")


@torch.no_grad()
def take_weights(model: PreTrainedModel, path: Path) -> None:
    """Copy tuned weights from a file into a model."""
    with safe_open(path, "pt") as file:
        for name, parameter in saved_state.trained(model).items():
            parameter.copy_(file.get_tensor(name))


def _tuned(work: Mapping[str, Any], device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Fine-tune; return the history, with the weights in the folder, or the losses of held-out rows if there are any."""
    recipe = work["recipe"]
    model = checkpoints.load_model(work["base"], torch.float32, "cpu")
    model = finetuning.adapted(model, recipe, work["seed"]) if recipe["method"] == "lora" else model
    sharding.spread(model, device, half=recipe["precision"] == "bf16")
    rows, held = ([Masked(*row) for row in work[part]] for part in ("rows", "held"))
    settings = (recipe, work["seed"], work["pad"], State(Path(work["state"]), work["fingerprint"]), sharding.printed)
    if held:
        return finetuning.tune_and_validate(model, rows, held, *settings)
    history = finetuning.tune(model, rows, *settings)
    saved_state.write_weights(model, folder / WEIGHTS)
    return history


if __name__ == "__main__":
    sharding.serve(Path(sys.argv[1]), _tuned)
