"""A tuning spread over several GPUs of one machine: weights, gradients and moments in shards, a batch's rows divided.

`tune` has torchrun start as many processes as the recipe has `gpus`; each of them runs this module's `main`. Shards are
torch's fully sharded data parallelism (Zhao et al., 2023, arXiv 2304.11277). What goes between the processes' parent and
them lies in a folder beside the state: the work as JSON, then its outcome and the weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from workflow import sources, states, tuning
from workflow.encoding import Masked
from workflow.errors import StudyError
from workflow.states import State
from workflow.tuning import DivergedError, History, Progress, StoppedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINE = re.compile(r"step (\d+) of (\d+)\n")
WORK, OUTCOME, WEIGHTS = "work.json", "outcome.json", "weights.safetensors"
GRACE = "600"  # seconds in which processes that are told to stop may save their state
PARENT_GONE = 1  # prctl's PR_SET_PDEATHSIG


def tune(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> History:
    """Tune a model that lies in the host's memory in place, as `tuning.tune` does.

    model: as it was loaded, from `model.name_or_path`, with adapters where the recipe has them.
    Errors: as `tuning.tune`; RuntimeError with what torchrun wrote when a process ended unforeseen.
    """
    work = {"rows": rows, "held": [], "recipe": dict(recipe), "seed": seed, "pad": pad}
    with _done(model, work, state, progress) as (found, weights):
        _take_weights(model, weights)
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
    """Measure validation rows by a tuned model as `tuning.tried` does; the model itself stays as it is."""
    work = {"rows": rows, "held": validation, "recipe": dict(recipe), "seed": seed, "pad": pad}
    with _done(model, work, state, progress) as (found, _):
        return found


@contextlib.contextmanager
def _done(
    model: PreTrainedModel, work: Mapping[str, Any], state: State, progress: Progress | None
) -> Iterator[tuple[list[dict[str, Any]], Path]]:
    """What the processes have found, and the file with the weights, there for as long as the context lasts."""
    folder = state.path.with_name(f"{state.path.name}.shards")
    place = {"base": model.name_or_path, "state": str(state.path), "fingerprint": state.fingerprint}
    with _emptied(folder):
        (folder / WORK).write_text(json.dumps({**work, **place}), encoding="utf-8")
        written = _run(folder, work["recipe"]["gpus"], progress)
        if not (folder / OUTCOME).is_file():
            raise RuntimeError(written)
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        if outcome["end"] == "diverged":
            raise DivergedError(outcome["error"], outcome["found"])
        if outcome["end"] != "done":
            raise (StoppedError if outcome["end"] == "stopped" else StudyError)(outcome["error"])
        yield outcome["found"], folder / WEIGHTS


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, new, for as long as the context lasts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, processes: int, progress: Progress | None) -> str:
    """Run the processes to their end, passing SIGTERM on; returns what they wrote for people."""
    package = str(Path(__file__).parents[1])
    search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "workflow.sharding", str(folder), str(processes)]
    with (folder / "written").open("w+", encoding="utf-8") as written:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=written, text=True, env=os.environ | {"PYTHONPATH": search}
        )
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            for line in process.stdout:
                if (found := LINE.fullmatch(line)) and progress:
                    progress(int(found[1]), int(found[2]))
            process.wait()
        finally:
            process.terminate()
            signal.signal(signal.SIGTERM, before)
        written.seek(0)
        return written.read()


@torch.no_grad()
def _take_weights(model: PreTrainedModel, path: Path) -> None:
    """Put tuned weights from a file into a model."""
    with safe_open(path, "pt") as file:
        for name, parameter in states.trained(model).items():
            parameter.copy_(file.get_tensor(name))


def launch(folder: str, processes: str) -> None:
    """Be torchrun for the processes; told to stop when the parent is gone, too."""
    from torch.distributed import run

    ctypes.CDLL(None).prctl(PARENT_GONE, signal.SIGTERM)
    run.main([
        "--standalone", "--nproc-per-node", processes, "--shutdown-timeout", GRACE, "--module", "workflow.sharding", folder,
    ])  # fmt: skip


def main(folder: Path) -> None:
    """The work of one of the processes."""
    work = json.loads((folder / WORK).read_text(encoding="utf-8"))
    recipe, device = work["recipe"], _joined()
    model = sources.load_model(work["base"], torch.float32, "cpu")
    model = tuning.adapted(model, recipe, work["seed"]) if recipe["method"] == "lora" else model
    spread(model, device, recipe["precision"])
    outcome = _outcome(model, work)
    if outcome["end"] == "done" and not work["held"]:
        states.write_weights(model, folder / WEIGHTS)
    if torch.distributed.get_rank() == 0:
        unfinished = folder / f".{OUTCOME}"
        unfinished.write_text(json.dumps(outcome), encoding="utf-8")
        unfinished.rename(folder / OUTCOME)
    torch.distributed.destroy_process_group()


def _outcome(model: PreTrainedModel, work: Mapping[str, Any]) -> dict[str, Any]:
    """How a tuning ended: end, found (rows), error (a line)."""
    rows, held = ([Masked(*row) for row in work[part]] for part in ("rows", "held"))
    state = State(Path(work["state"]), work["fingerprint"])
    given = (work["recipe"], work["seed"], work["pad"], state, _printed)
    try:
        found = tuning.tried(model, rows, held, *given) if held else tuning.tune(model, rows, *given)
    except DivergedError as error:
        return {"end": "diverged", "found": error.history, "error": str(error)}
    except StoppedError as error:
        return {"end": "stopped", "found": [], "error": str(error)}
    except StudyError as error:
        return {"end": "refused", "found": [], "error": str(error)}
    return {"end": "done", "found": found, "error": ""}


def _joined() -> torch.device:
    """The device of this process, which has become one of several."""
    if not torch.cuda.is_available():
        torch.distributed.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl", device_id=device)
    return device


def _printed(done: int, steps: int) -> None:
    """Tell the parent how far the tuning has come."""
    if torch.distributed.get_rank() == 0:
        print(f"step {done} of {steps}", flush=True)


def spread(model: PreTrainedModel, device: torch.device, precision: str) -> None:
    """Shard a model over all processes, block by block, each on its own device.

    In bf16 the blocks are put together in bf16 and summed up in fp32; shards, gradients and moments stay fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    how = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "mp_policy": half if precision == "bf16" else MixedPrecisionPolicy(),
    }
    names = set(inner._no_split_modules or ())
    for block in [module for module in inner.modules() if type(module).__name__ in names]:
        fully_shard(block, **how)
    fully_shard(inner, **how)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        launch(*sys.argv[1:])
    else:
        main(Path(sys.argv[1]))
