"""Sharing the GPUs of one machine between jobs: each job sees the GPUs (usually one) on which it has reserved memory.

A reservation is a locked file in the device's folder, named after the amount of memory. The kernel releases the lock however
the job ends, so a killed job leaves nothing to clean up. Reservations are not enforced and hold only between jobs of
one user on one machine. A job that needs much memory may wait while jobs that need less start before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from workflow.errors import StudyError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SLICED = "MIG-"  # begins the identifier of a slice
SLICE = re.compile(r"^\s+MIG \S*\b(\d+)gb\S*\s.*\(UUID: (MIG-[^)]+)\)", re.MULTILINE)
PACKS = 8  # packs whose keys and values a GPU keeps for rows that are being written, see `engine.reading`
PAUSE = 1.0  # seconds between two checks for free memory


@contextlib.contextmanager
def own(needed: int, number: int = 1) -> Iterator[str | None]:
    """Wait for GPUs with enough unreserved memory, reserve it and make this process see only these GPUs.

    needed: MB, all GPUs together; number: of GPUs. Enter before CUDA is first used. Yields the devices, or None where `needed`
    is 0 or there is no GPU.
    Errors: StudyError when there are fewer GPUs, or the folder of reservations belongs to another user.
    """
    memory = visible() if needed else {}
    if not memory:
        yield None
        return
    if len(memory) < number:
        raise StudyError(f"gpus: found {number}, expected no more than the {len(memory)} that this job may use")
    with promised(math.ceil(needed / number), memory, promises(), number) as device:
        os.environ[VISIBLE] = device
        yield device


def visible() -> dict[str, int]:
    """Memory in MB of each GPU that this process may use, by its identifier; empty where NVIDIA's driver is missing.

    A slice of a GPU (MIG) is one where it is named in CUDA_VISIBLE_DEVICES; its memory is what its profile says.
    """
    chosen = os.environ.get(VISIBLE)
    if (chosen or "").startswith(SLICED):
        return allowed({name: int(size) * 1024 for size, name in SLICE.findall(_told("-L"))}, chosen)
    lines = _told("--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits").splitlines()
    rows = [[entry.strip() for entry in line.split(",")] for line in lines if line.strip()]
    known = {uuid: int(total) if total.isdigit() else 0 for uuid, total in rows}
    # For a GPU that shares the host's memory the driver states no memory, so none can be reserved.
    return {uuid: total for uuid, total in allowed(known, chosen).items() if total}


def _told(*arguments: str) -> str:
    """Output of nvidia-smi; empty text if it is missing or fails."""
    program = shutil.which("nvidia-smi")
    ended = program and subprocess.run([program, *arguments], capture_output=True, text=True)
    return ended.stdout if ended and ended.returncode == 0 else ""


def allowed(memory: Mapping[str, int], chosen: str | None) -> dict[str, int]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES selects, as CUDA reads it; memory: by identifier, in the driver's order.

    An entry is a place or the beginning of an identifier; the first that means no GPU, such as -1, ends the list. One that
    is repeated leaves none at all.
    """
    if chosen is None:
        return dict(memory)
    found: list[str] = []
    for entry in chosen.split(","):
        device = _meant(entry.strip(), list(memory))
        if device is None:
            break
        if device in found:
            return {}
        found.append(device)
    return {device: memory[device] for device in found}


def _meant(entry: str, there: Sequence[str]) -> str | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES means; None where it is none, or several."""
    if number := re.match(r"\+?\d+", entry):  # whatever follows the digits is not read
        return there[int(number[0])] if int(number[0]) < len(there) else None
    fitting = [device for device in there if entry.startswith(("GPU-", SLICED)) and device.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def promises() -> Path:
    """The folder of this user's reservations on this machine."""
    folder = Path(tempfile.gettempdir()) / f"tunecast-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():  # not of what a link of someone else's leads to
        raise StudyError(f"{folder}: belongs to another user, who has to delete it")
    return folder


@contextlib.contextmanager
def promised(needed: int, memory: Mapping[str, int], folder: Path, number: int = 1) -> Iterator[str]:
    """Wait for the devices with the most free memory and reserve it; a job that needs more than a device has gets all of it.

    Yields the devices as one string, separated by commas; all are reserved at the same moment.
    """
    needed = min(needed, sorted(memory.values())[-number])
    with contextlib.ExitStack() as promise:
        while not (devices := _promise(needed, memory, folder, number, promise)):
            time.sleep(PAUSE)
        yield ",".join(devices)


def _promise(
    needed: int, memory: Mapping[str, int], folder: Path, number: int, promise: contextlib.ExitStack
) -> list[str]:
    """Reserve memory on the devices with the most free memory until the stack closes; an empty list if it is too little."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        room = {device: total - taken(folder / device) for device, total in memory.items()}
        devices = sorted(room, key=lambda device: -room[device])[:number]
        if any(room[device] < needed for device in devices):
            return []
        for device in devices:
            (folder / device).mkdir(parents=True, exist_ok=True)  # names of some slices have a / in them
            file = tempfile.NamedTemporaryFile(prefix=f"{needed}-", dir=folder / device, delete=False)  # noqa: SIM115
            fcntl.flock(promise.enter_context(file), fcntl.LOCK_EX)
            # Removed while it is locked: once it is not, another job may remove it first.
            promise.callback(Path(file.name).unlink, missing_ok=True)
        return devices


def taken(folder: Path) -> int:
    """Reserved memory of a device in MB; reservations whose job has ended are removed."""
    total = 0
    for path in folder.glob("*-*"):
        with contextlib.suppress(FileNotFoundError), path.open() as promise:
            try:
                fcntl.flock(promise, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                total += int(path.name.split("-")[0])
            else:
                path.unlink()
    return total
