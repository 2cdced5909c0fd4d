"""A model spread over several GPUs of one machine: weights in shards, rows divided.

`jobs.processes` starts as many processes as there are GPUs; `training.multi_gpu` and `evaluation.multi_gpu` say what each of
them does. Shards are torch's fully sharded data parallelism (Zhao et al., 2023, arXiv 2304.11277): a block's weights are put
together when it is its turn, in which all processes take part.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from workflow.errors import DivergedError, StoppedError, StudyError, told
from workflow.jobs import processes
from workflow.jobs.processes import Outcome, Progress
from workflow.models import process_group
from workflow.models.engine.reading import out_of_memory
from workflow.storage.files import scratch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDS = {"stopped": StoppedError, "refused": StudyError}


# In the job


@contextlib.contextmanager
def done(
    module: str, work: Mapping[str, Any], gpus: int, beside: Path, progress: Progress | None
) -> Iterator[tuple[list[dict[str, Any]], Path]]:
    """What processes have found and the folder with their files, there for as long as the context lasts; an error of theirs
    is one here. module: its `__main__` calls `serve`.

    Errors: those that the work raises; RuntimeError when a process ended unforeseen.
    """
    with scratch(beside) as folder:
        outcome = processes.ended(module, work, gpus, folder, progress)
        if outcome.end == "diverged":
            raise DivergedError(outcome.error, outcome.found)
        if outcome.end in ENDS:
            raise ENDS[outcome.end](outcome.error)
        yield outcome.found, folder


# In each of the processes


def serve(folder: Path, do: Callable[[dict[str, Any], torch.device, Path], list[dict[str, Any]]]) -> None:
    """Do the work that lies in a folder as one of several processes, and tell the parent how it ended.

    do: work, this process's device, folder for files -> rows that were found.
    """
    processes.end_with_parent()
    work, device = processes.work(folder), _joined()
    try:
        found = do(work, device, folder)
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


def printed(done: int, steps: int) -> None:
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
