"""GPUs shared by promises of memory: who gets which, who waits, what a killed job leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workflow.errors import StudyError
from workflow.jobs import devices

MEMORY = {"one": 24000, "two": 16000}
LISTED = "GPU-aa, 24576\nGPU-bb, 16384\n"
# An A100 in slices: their names as newer and as older drivers give them (NVIDIA's guide to MIG).
SLICES = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
  MIG 1c.2g.10gb  Device  2: (UUID: MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/3/0)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PAUSE", 0.02)


def test_each_job_gets_the_device_with_the_most_room(tmp_path: Path) -> None:
    with contextlib.ExitStack() as jobs:
        first = jobs.enter_context(devices.promised(10000, MEMORY, tmp_path))  # room 24, 16
        second = jobs.enter_context(devices.promised(10000, MEMORY, tmp_path))  # room 14, 16
        with devices.promised(14000, MEMORY, tmp_path) as third:  # room 14, 6
            assert (first, second, third) == ("one", "two", "one")
            assert devices.taken(tmp_path / "one") == 24000
        assert devices.taken(tmp_path / "one") == 10000
    assert devices.taken(tmp_path / "one") == devices.taken(tmp_path / "two") == 0


def test_a_job_waits_for_one_device_though_all_together_have_room(tmp_path: Path) -> None:
    entered = threading.Event()

    def third() -> None:
        with devices.promised(10000, MEMORY, tmp_path):
            entered.set()

    with devices.promised(15000, MEMORY, tmp_path):  # leaves 9 and 16
        with devices.promised(7000, MEMORY, tmp_path):  # leaves 9 and 9: 18 together
            waiting = threading.Thread(target=third)
            waiting.start()
            assert not entered.wait(0.3)
        assert entered.wait(10)
    waiting.join()


def test_what_no_device_can_hold_takes_the_whole_of_the_largest(tmp_path: Path) -> None:
    with devices.promised(99000, MEMORY, tmp_path) as device:
        assert device == "one"
        assert devices.taken(tmp_path / "one") == 24000


def test_a_job_of_two_devices_waits_until_both_have_room(tmp_path: Path) -> None:
    """Of three devices those with the most room; what none of two can hold takes both whole."""
    memory, entered = MEMORY | {"three": 20000}, threading.Event()

    def second() -> None:
        with devices.promised(15000, memory, tmp_path, 2) as found:
            assert found == "one,three"
            entered.set()

    with devices.promised(10000, memory, tmp_path, 2) as first:  # room 24, 20, 16
        assert first == "one,three"
        waiting = threading.Thread(target=second)  # room 14, 16, 10: one has not enough
        waiting.start()
        assert not entered.wait(0.3)
        assert [devices.taken(tmp_path / name) for name in ("one", "three", "two")] == [10000, 10000, 0]
    assert entered.wait(10)
    waiting.join()
    with devices.promised(99000, MEMORY, tmp_path, 2) as both:
        assert both == "one,two" and devices.taken(tmp_path / "one") == devices.taken(tmp_path / "two") == 16000


def test_a_promise_that_another_job_has_tidied_up_ends_quietly(tmp_path: Path) -> None:
    """Between a promise's end and its file's, another job may find it unlocked and remove it."""
    with devices.promised(10000, MEMORY, tmp_path):
        next((tmp_path / "one").iterdir()).unlink()
    assert devices.taken(tmp_path / "one") == 0


def test_a_killed_job_s_promise_is_void(tmp_path: Path) -> None:
    held = f"""
import sys, time
from pathlib import Path
from workflow.jobs import devices
with devices.promised(20000, {{"one": 24000}}, Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        assert devices.taken(tmp_path / "one") == 20000
        job.send_signal(signal.SIGKILL)
    assert len(list((tmp_path / "one").iterdir())) == 1  # nobody tidied up
    with devices.promised(24000, {"one": 24000}, tmp_path):
        assert devices.taken(tmp_path / "one") == 24000


IDENTIFIERS = {"GPU-aa11": 24576, "GPU-aa22": 16384, "GPU-bb11": 16384}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("1gpu", [1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", [0]),
        ("1,7,0", [1]),
        ("1,1", []),
        ("GPU-aa22,GPU-aa11", [1, 0]),
        ("GPU-bb", [2]),
        ("GPU-aa", []),
        ("GPU-bb11,GPU-cc,GPU-aa11", [2]),
        ("GPU-bb,GPU-bb11", []),
    ],
)
def test_a_list_of_devices_is_read_as_torch_reads_it(
    chosen: str | None, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    names = list(IDENTIFIERS)
    assert devices.allowed(IDENTIFIERS, chosen) == {names[place]: IDENTIFIERS[names[place]] for place in left}
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: names)
    if chosen is not None:
        monkeypatch.setenv(devices.VISIBLE, chosen)
        assert torch.cuda._device_count_nvml() == len(left)


def test_without_gpu_or_need_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setenv("PATH", "")
    with devices.own(8000) as device:
        assert device is None
    assert devices.VISIBLE not in os.environ


def pretend_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str = LISTED, code: int = 0) -> None:
    """GPUs that nvidia-smi lists, and a folder of promises of the test's own."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_a_job_sees_the_device_it_was_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(tmp_path, monkeypatch)
    monkeypatch.setenv(devices.VISIBLE, "1")
    with devices.own(8000) as device:
        assert device == os.environ[devices.VISIBLE] == "GPU-bb"
        assert devices.taken(devices.promises() / "GPU-bb") == 8000


def test_a_job_of_two_devices_sees_both_and_never_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(tmp_path, monkeypatch)
    monkeypatch.setenv(devices.VISIBLE, "0,1")
    with devices.own(8001, 2) as found:
        assert found == os.environ[devices.VISIBLE] == "GPU-aa,GPU-bb"
        assert devices.taken(devices.promises() / "GPU-bb") == 4001
    monkeypatch.setenv(devices.VISIBLE, "1")
    with pytest.raises(StudyError, match=r"^gpus: found 2, expected no more than the 1 that this job may use$"):
        devices.own(8000, 2).__enter__()


# A job that states its need, tells its device and when it had it, and works for a moment.
SHARING = """
import os, sys, time
from workflow.jobs import devices
devices.PAUSE = 0.02
with devices.own(int(sys.argv[1])):
    print(os.environ[devices.VISIBLE], time.monotonic(), flush=True)
    time.sleep(0.5)
    print(time.monotonic())
"""


def test_jobs_of_one_machine_share_devices_within_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(tmp_path, monkeypatch)
    needs = [9000, 9000, 9000, 9000, 20000, 12000, 5000, 16000]
    jobs = [
        subprocess.Popen([sys.executable, "-c", SHARING, str(need)], stdout=subprocess.PIPE, text=True)
        for need in needs
    ]
    told = [job.communicate()[0].split() for job in jobs]
    assert told[4][0] == "GPU-aa"  # the other has 16384 MB
    for device, memory in devices.visible().items():
        spans = [(*map(float, span), need) for (own, *span), need in zip(told, needs, strict=True) if own == device]
        assert spans
        # What is taken grows only where a job starts.
        taken = [sum(need for start, end, need in spans if start <= moment < end) for moment, _, _ in spans]
        assert max(taken) <= memory


def test_slices_of_a_gpu_have_the_memory_of_their_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(tmp_path, monkeypatch, SLICES)
    first, second, third = (line.split("UUID: ")[1].rstrip(")") for line in SLICES.splitlines()[1:])
    monkeypatch.setenv(devices.VISIBLE, f"{second},{first},{third}")
    assert devices.visible() == {second: 5 * 1024, first: 20 * 1024, third: 10 * 1024}
    monkeypatch.setenv(devices.VISIBLE, "MIG-c6d4")
    with devices.own(8000) as device:
        assert device == first and devices.taken(devices.promises() / first) == 8000
    monkeypatch.setenv(devices.VISIBLE, third)
    with devices.own(8000) as device:
        assert device == os.environ[devices.VISIBLE] == third


@pytest.mark.parametrize(
    ("listed", "code"),
    [("No devices were found\n", 6), ("NVIDIA-SMI has failed\n", 9), ("GPU-aa, [N/A]\n", 0), ("", 0)],
)
def test_a_driver_that_tells_of_no_memory_leaves_things_as_they_are(
    listed: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(tmp_path, monkeypatch, listed, code)
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    with devices.own(8000) as device:
        assert device is None and devices.VISIBLE not in os.environ
