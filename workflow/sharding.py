"""A tuning spread over several GPUs of one machine: weights, gradients and moments in shards, a batch's rows divided.

`tuned` has torchrun start as many processes as the recipe has `gpus`; each of them runs this module's `main`. Shards are
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workflow.encoding import Masked
from workflow.errors import StudyError
from workflow.states import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINE = re.compile(r"step (\d+) of (\d+)\n")
GRACE = "600"  # seconds in which processes that are told to stop may save their state
PARENT_GONE = 1  # prctl's PR_SET_PDEATHSIG


def tuned(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Callable[[int, int], None] | None = None,
    held: Sequence[Masked] = (),
) -> list[dict[str, Any]]:
    """Tune a model that lies in the host's memory as `tuning.tune` does; with held rows, as `tuning.tried` does.

    model: as it was loaded, from `model.name_or_path`, with adapters where the recipe has them; gets the tuned weights.
    Errors: as `tuning.tune`; RuntimeError with what torchrun wrote when a process ended unforeseen.
    """
    from workflow.tuning import DivergedError, StoppedError

    folder = state.path.with_name(f"{state.path.name}.shards")
    work = {
        "base": model.name_or_path, "rows": rows, "held": list(held), "recipe": dict(recipe), "seed": seed, "pad": pad,
        "state": str(state.path), "fingerprint": state.fingerprint,
    }  # fmt: skip
    with _emptied(folder):
        (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
        written = _run(folder, recipe["gpus"], progress)
        if not (folder / "outcome.json").is_file():
            raise RuntimeError(written)
        outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
        match outcome["end"]:
            case "diverged":
                raise DivergedError(outcome["error"], outcome["found"])
            case "stopped":
                raise StoppedError(outcome["error"])
            case "refused":
                raise StudyError(outcome["error"])
        if not held:
            _take_weights(model, folder / "weights.safetensors")
    return outcome["found"]


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, new, for as long as the context lasts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, processes: int, progress: Callable[[int, int], None] | None) -> str:
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
    from safetensors import safe_open

    from workflow.states import trained

    with safe_open(path, "pt") as file:
        for name, parameter in trained(model).items():
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
    from workflow import sources, states, tuning

    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    recipe, device = work["recipe"], _joined()
    rows, held = ([Masked(*row) for row in work[part]] for part in ("rows", "held"))
    model = sources.load_model(work["base"], torch.float32, "cpu")
    model = tuning.adapted(model, recipe, work["seed"]) if recipe["method"] == "lora" else model
    spread(model, device, recipe["precision"])
    state = State(Path(work["state"]), work["fingerprint"])
    given = (recipe, work["seed"], work["pad"], state, _printed)
    end, error = "done", ""
    try:
        found = tuning.tried(model, rows, held, *given) if held else tuning.tune(model, rows, *given)
    except tuning.DivergedError as diverged:
        end, error, found = "diverged", str(diverged), diverged.history
    except tuning.StoppedError as stopped:
        end, error, found = "stopped", str(stopped), []
    except StudyError as refused:
        end, error, found = "refused", str(refused), []
    if end == "done" and not held:
        states.write_weights(model, folder / "weights.safetensors")
    if torch.distributed.get_rank() == 0:
        unfinished = folder / "outcome"
        unfinished.write_text(json.dumps({"end": end, "error": error, "found": found}), encoding="utf-8")
        unfinished.rename(folder / "outcome.json")
    torch.distributed.destroy_process_group()


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
