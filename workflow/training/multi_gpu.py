"""A model spread over several GPUs of one machine, to be tuned or to predict: weights in shards, rows divided.

`processes` starts as many processes as there are GPUs; each of them runs this module's `main`. Shards are torch's fully
sharded data parallelism (Zhao et al., 2023, arXiv 2304.11277): a block's weights are put together when it is its turn, in
which all processes take part.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import distributed

from workflow import task
from workflow.errors import StudyError, told
from workflow.evaluation import prediction
from workflow.jobs import processes
from workflow.jobs.processes import Outcome, Progress
from workflow.models import checkpoints, loading, process_group
from workflow.models.encoding import Masked
from workflow.models.engine.reading import out_of_memory
from workflow.storage.files import scratch
from workflow.training import finetuning, saved_state
from workflow.training.finetuning import DivergedError, History, StoppedError
from workflow.training.saved_state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "weights.safetensors"
ENDS = {"stopped": StoppedError, "refused": StudyError}


# In the job


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
    with _done(work, recipe["gpus"], _beside(state), progress) as (found, folder):
        _take_weights(model, folder / WEIGHTS)
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
    with _done(work, recipe["gpus"], _beside(state), progress) as (found, _):
        return found


def predict(
    base: Mapping[str, Any],
    tuned: str | None,
    suite: Mapping[str, Any],
    tests: Mapping[str, str],
    gpus: int,
    beside: Path,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """All predictions of a suite, as `prediction.predict` makes them of the model that `loading.ready` loads.

    tests: name -> file of the prepared task; beside: the path beside which the processes leave files while they work.
    Errors: as `prediction.predict`, and StudyError when memory runs out; RuntimeError when a process ended unforeseen.
    """
    work = {"base": dict(base), "model": tuned, "suite": dict(suite), "tests": dict(tests)}
    with _done(work, gpus, beside, progress) as (found, _):
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


@contextlib.contextmanager
def _done(
    work: Mapping[str, Any], gpus: int, beside: Path, progress: Progress | None
) -> Iterator[tuple[list[dict[str, Any]], Path]]:
    """What processes have found and the folder with their files, there for as long as the context lasts; an error of theirs
    is one here."""
    with scratch(beside) as folder:
        outcome = processes.ended("workflow.training.multi_gpu", work, gpus, folder, progress)
        if outcome.end == "diverged":
            raise DivergedError(outcome.error, outcome.found)
        if outcome.end in ENDS:
            raise ENDS[outcome.end](outcome.error)
        yield outcome.found, folder


@torch.no_grad()
def _take_weights(model: PreTrainedModel, path: Path) -> None:
    """Put tuned weights from a file into a model."""
    with safe_open(path, "pt") as file:
        for name, parameter in saved_state.trained(model).items():
            parameter.copy_(file.get_tensor(name))


# In each of the processes


def main(folder: Path) -> None:
    """The work of one of the processes."""
    processes.end_with_parent()
    work, device = processes.work(folder), _joined()
    try:
        found = (_predicted if "suite" in work else _tuned)(work, device, folder)
    except Exception as error:  # whatever it is, the others wait for this process
        if failure := _failure(error, work):
            processes.tell(folder, failure)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # torchrun then ends the others; in good order this one would wait for them
    if process_group.place()[0] == 0:
        processes.tell(folder, Outcome("done", found))
    distributed.destroy_process_group()


def _tuned(work: Mapping[str, Any], device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """History of a tuning, its weights in the folder; or what was measured of rows that are held out."""
    recipe = work["recipe"]
    model = checkpoints.load_model(work["base"], torch.float32, "cpu")
    model = finetuning.adapted(model, recipe, work["seed"]) if recipe["method"] == "lora" else model
    spread(model, device, half=recipe["precision"] == "bf16")
    rows, held = ([Masked(*row) for row in work[part]] for part in ("rows", "held"))
    given = (recipe, work["seed"], work["pad"], State(Path(work["state"]), work["fingerprint"]), _printed)
    if held:
        return finetuning.tried(model, rows, held, *given)
    history = finetuning.tune(model, rows, *given)
    saved_state.write_weights(model, folder / WEIGHTS)
    return history


def _predicted(work: Mapping[str, Any], device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """All predictions of a suite."""
    suite = work["suite"]
    model, tokenizer = loading.ready(work["base"], work["model"], suite["precision"], "cpu")
    spread(model, device)
    tests = {name: task.examples(name, Path(path)) for name, path in work["tests"].items()}
    return list(prediction.predict(model, tokenizer, suite, tests, _printed))


def _failure(error: Exception, work: Mapping[str, Any]) -> Outcome | None:
    """An error as the parent is to raise it; None for one that was not foreseen."""
    if isinstance(error, DivergedError):
        return Outcome("diverged", error.history, str(error))
    if isinstance(error, StoppedError):
        return Outcome("stopped", [], str(error))
    if isinstance(error, RuntimeError) and out_of_memory(error):
        rank, number = process_group.place()
        less = "batch_tokens" if "suite" in work else "batch or max_tokens"
        return Outcome("refused", [], f"memory ran out in process {rank + 1} of {number}; lower {less}, or raise gpus")
    line = told(error)
    return Outcome("refused", [], line) if line else None


def _joined() -> torch.device:
    """The device of this process, which has become one of several."""
    if not torch.cuda.is_available():
        distributed.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", device_id=device)
    return device


def _printed(done: int, steps: int) -> None:
    """Progress of all processes is that of the first."""
    if process_group.place()[0] == 0:
        processes.printed(done, steps)


def spread(model: PreTrainedModel, device: torch.device, half: bool = False) -> None:
    """Shard a model over all processes, block by block, each on its own device.

    half: whether blocks are put together in bf16 and their gradients summed up in fp32; the shards stay as they are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner._can_set_attn_implementation()  # looks into the class's own module; sharding makes another class of it
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    how = {
        "mesh": init_device_mesh(device.type, (distributed.get_world_size(),)),
        "mp_policy": mixed if half else MixedPrecisionPolicy(),
    }
    names = set(inner._no_split_modules or ())
    for block in [module for module in inner.modules() if type(module).__name__ in names]:
        fully_shard(block, **how)
    fully_shard(inner, **how)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
