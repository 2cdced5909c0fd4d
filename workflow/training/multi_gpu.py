"""Fine-tuning of a model that is spread over several GPUs of one machine (see `models.sharding`)."""

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
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> History:
    """Tune a model that lies in the host's memory in place, as `finetuning.tune` does.

    model: as it was loaded, from `model.name_or_path`, with adapters where the recipe has them.
    Errors: as `finetuning.tune`; RuntimeError when a process ended unforeseen.
    """
    work = _tuning(model, rows, [], recipe, seed, pad, state)
    with sharding.done(MODULE, work, recipe["gpus"], _beside(state), progress) as (found, folder):
        take_weights(model, folder / WEIGHTS)
    return found


def tried(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    validation: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float | None]]:
    """Measure validation rows by a tuned model as `finetuning.tried` does; the model itself stays as it is."""
    work = _tuning(model, rows, validation, recipe, seed, pad, state)
    with sharding.done(MODULE, work, recipe["gpus"], _beside(state), progress) as (found, _):
        return found


def _tuning(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    held: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
) -> dict[str, Any]:
    """A tuning as work; of a state that is damaged it is told here, where there is a log."""
    state.facts()
    place = {"base": model.name_or_path, "state": str(state.path), "fingerprint": state.fingerprint}
    return {"rows": rows, "held": held, "recipe": dict(recipe), "seed": seed, "pad": pad, **place}


def _beside(state: State) -> Path:
    """Beside what a tuning's processes leave files: on the state's disk, since weights are among them."""
    return state.path.with_name(f"{state.path.name}.shards")


@torch.no_grad()
def take_weights(model: PreTrainedModel, path: Path) -> None:
    """Put tuned weights from a file into a model."""
    with safe_open(path, "pt") as file:
        for name, parameter in saved_state.trained(model).items():
            parameter.copy_(file.get_tensor(name))


def _tuned(work: Mapping[str, Any], device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """History of a tuning, its weights in the folder; or what was measured of rows that are held out."""
    recipe = work["recipe"]
    model = checkpoints.load_model(work["base"], torch.float32, "cpu")
    model = finetuning.adapted(model, recipe, work["seed"]) if recipe["method"] == "lora" else model
    sharding.spread(model, device, half=recipe["precision"] == "bf16")
    rows, held = ([Masked(*row) for row in work[part]] for part in ("rows", "held"))
    given = (recipe, work["seed"], work["pad"], State(Path(work["state"]), work["fingerprint"]), sharding.printed)
    if held:
        return finetuning.tried(model, rows, held, *given)
    history = finetuning.tune(model, rows, *given)
    saved_state.write_weights(model, folder / WEIGHTS)
    return history


if __name__ == "__main__":
    sharding.serve(Path(sys.argv[1]), _tuned)
