"""A model spread over several GPUs of one machine: weights in shards, rows divided.

`jobs.processes` starts one process for each GPU; `training.multi_gpu` and `evaluation.multi_gpu` are the work of each.
Shards are torch's fully sharded data parallelism (Zhao et al., 2023, arXiv 2304.11277): all processes together gather a
block's weights before the block runs.
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
from workflow.models import adapters, process_group
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
    """Run work in several processes; yield the rows they return and the folder of their files, which the context removes.

    module: its `__main__` calls `serve`.
    Errors: those that the work raises; RuntimeError if a process ended unexpectedly.
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
    """Do the work of a folder as one of several processes, and report the outcome to the parent.

    do: work, this process's device, folder for files -> rows.
    """
    processes.end_with_parent()
    work, device = processes.work(folder), _joined()
    try:
        rows = do(work, device, folder)
    except Exception as error:  # of any kind, since the other processes wait for this one
        if failure := _failure(error, work):
            processes.tell(folder, failure)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # torchrun then ends the others; a normal exit would wait for them
    if process_group.rank_and_size()[0] == 0:
        processes.tell(folder, Outcome("done", rows))
    distributed.destroy_process_group()


def _failure(error: Exception, work: Mapping[str, Any]) -> Outcome | None:
    """Return an error as the outcome that the parent raises; None for an unexpected error."""
    if isinstance(error, DivergedError):
        return Outcome("diverged", error.history, str(error))
    if isinstance(error, StoppedError):
        return Outcome("stopped", [], str(error))
    if isinstance(error, RuntimeError) and out_of_memory(error):
        rank, number = process_group.rank_and_size()
        less = "batch_tokens" if "suite" in work else "batch or max_tokens"
        return Outcome("refused", [], f"memory ran out in process {rank + 1} of {number}; lower {less}, or raise gpus")
    line = told(error)
    return Outcome("refused", [], line) if line else None


def _joined() -> torch.device:
    """Join the process group; return the device of this process."""
    if not torch.cuda.is_available():
        distributed.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", device_id=device)
    return device


def printed(done: int, steps: int) -> None:
    """Print progress, in the first process only."""
    if process_group.rank_and_size()[0] == 0:
        processes.printed(done, steps)


def spread(model: PreTrainedModel, device: torch.device, half: bool = False) -> None:
    """Shard a model over all processes, block by block, each process on its device.

    half: whether blocks are gathered in bf16 and their gradients summed in fp32; the shards keep their precision.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    inner = adapters.without_adapters(model)
    inner._can_set_attn_implementation()  # reads the module of the model's class, which sharding replaces by another class
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    arguments: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (distributed.get_world_size(),)),
        "mp_policy": mixed if half else MixedPrecisionPolicy(),
    }
    names = set(inner._no_split_modules or ())
    for block in [module for module in inner.modules() if type(module).__name__ in names]:
        fully_shard(block, **arguments)
    fully_shard(inner, **arguments)
