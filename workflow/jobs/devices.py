"""GPUs that jobs of one machine share: each sees its own, as a rule a single one, with the memory promised that it states.

A promise is a file in the device's folder, named after its memory, that the job keeps locked; the kernel lifts the lock
however the job ends, so nothing has to be tidied up after a kill. Memory is promised, not enforced, and between jobs of
one user on one machine only; who asks for much may wait while others that ask for little go first.
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
PAUSE = 1.0  # seconds between two looks for room


@contextlib.contextmanager
def own(needed: int, number: int = 1) -> Iterator[str | None]:
    """Show this process so many GPUs with that much memory (MB, of all together) promised to nobody else, waiting for it.

    To be entered before CUDA is first used. Without need or GPU nothing is changed and None is given.
    Errors: StudyError when there are fewer GPUs, or the folder of promises belongs to another user.
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
    # Of a GPU that shares the host's memory the driver states none, so that there is none to promise.
    return {uuid: total for uuid, total in allowed(known, chosen).items() if total}


def _told(*arguments: str) -> str:
    """What nvidia-smi writes; nothing where it is missing, or has no driver or GPU to tell of."""
    program = shutil.which("nvidia-smi")
    ended = program and subprocess.run([program, *arguments], capture_output=True, text=True)
    return ended.stdout if ended and ended.returncode == 0 else ""


def allowed(memory: Mapping[str, int], chosen: str | None) -> dict[str, int]:
    """What a CUDA_VISIBLE_DEVICES leaves of GPUs, as CUDA reads it; memory: by identifier, in the driver's order.

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
    """The folder of this user's promises on this machine."""
    folder = Path(tempfile.gettempdir()) / f"tunecast-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():  # not of what a link of someone else's leads to
        raise StudyError(f"{folder}: found it owned by another user, expected it to be one's own; remove it")
    return folder


@contextlib.contextmanager
def promised(needed: int, memory: Mapping[str, int], folder: Path, number: int = 1) -> Iterator[str]:
    """The devices with the most room, once each has enough; what exceeds the largest devices takes the whole of them.

    Several are named in one string with commas between them, all promised in the same moment.
    """
    needed = min(needed, sorted(memory.values())[-number])
    with contextlib.ExitStack() as promise:
        while not (devices := _promise(needed, memory, folder, number, promise)):
            time.sleep(PAUSE)
        yield ",".join(devices)


def _promise(
    needed: int, memory: Mapping[str, int], folder: Path, number: int, promise: contextlib.ExitStack
) -> list[str]:
    """Promise memory on the devices with the most room for as long as the stack lasts; none when it is not enough."""
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
            # Removed while it is locked: once it is not, whoever looks for room may remove it first.
            promise.callback(Path(file.name).unlink, missing_ok=True)
        return devices


def taken(folder: Path) -> int:
    """Memory in MB that is promised on a device; promises whose job is gone are removed."""
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
