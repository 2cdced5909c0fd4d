"""A Slurm of one node on this machine, started and stopped by a test: munged, slurmctld and slurmd in one folder.

Needs Debian's packages munge, slurmctld, slurmd and slurm-client, neither systemd nor root. GPUs are pretended: generic
resources behind devices that every machine has, so that Slurm counts them and tells each job which one is its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = (
    "munged",
    "mungekey",
    "munge",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
)
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
DEVICES = ("/dev/null", "/dev/zero")
CPUS = max(2, os.cpu_count() or 1)
MEMORY = 16000  # MB that Slurm deals out, whatever the machine has
WAIT = 30.0
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
KillWait=20
SlurmdTimeout=5
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=10000
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=short Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=accelerated Nodes=ALL MaxTime=INFINITE
"""


@dataclass(frozen=True)
class Cluster:
    """A running Slurm: its folder, the environment in which its commands work, its daemons by name."""

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def ask(self, *command: str) -> list[str]:
        """The lines that one of Slurm's commands prints."""
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=WAIT, check=True)
        return ended.stdout.splitlines()

    def start_node(self) -> None:
        """Start the node's daemon."""
        self.daemons["slurmd"] = _started(self, "slurmd", "-D", "-N", "node")

    def lose_node(self, with_steps: bool) -> None:
        """Kill the node's daemon, and the steps that it has started or not; seconds later Slurm takes the node for lost."""
        self.daemons["slurmd"].kill()
        self.daemons["slurmd"].wait()
        for process in steps(self) if with_steps else []:
            for child in [*_offspring(process), process]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def jobs(self, form: str) -> list[str]:
        """A line for every job so far, in squeue's own format."""
        return self.ask("squeue", "--states=all", "--noheader", "--sort=i", f"--format={form}")


def missing() -> list[str]:
    """The programs that a Slurm needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A Slurm in an empty folder, stopped with all its jobs when the test is over or dies."""
    environment = os.environ | {"PATH": f"{folder}/bin:{PATH}", "SLURM_CONF": f"{folder}/slurm.conf"}
    cluster = Cluster(folder, environment)
    configure(folder)
    with contextlib.ExitStack() as ending:
        ending.callback(_stop, cluster)
        key = f"{folder}/munge.key"
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], env=environment, check=True)
        places = {
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "seed-file": "munge.seed",
            "log-file": "munged.log",
        }
        options = [f"--{option}={folder}/{name}" for option, name in places.items()]
        cluster.daemons["munged"] = _started(
            cluster, "munged", "--foreground", "--force", f"--key-file={key}", *options
        )
        _wait_for(lambda: cluster.ask("munge", "--no-input", f"--socket={folder}/munge.socket"), cluster)
        cluster.daemons["slurmctld"] = _started(cluster, "slurmctld", "-D")
        cluster.start_node()
        _wait_for(lambda: cluster.ask("sinfo", "--noheader", "--states=idle", "--format=%N"), cluster)
        ending.callback(_cancel, cluster)
        yield cluster


def configure(folder: Path) -> None:
    """Write a Slurm's configuration, with ports that are free now."""
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    controller, node = _free_ports(2)
    facts = {"folder": folder, "host": socket.gethostname().split(".")[0], "user": _user(), "gpus": len(DEVICES)}
    text = CONFIG.format(**facts, controller=controller, node=node, cpus=CPUS, memory=MEMORY)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    gpus = "".join(f"NodeName=node Name=gpu File={device}\n" for device in DEVICES)
    (folder / "gres.conf").write_text(f"AutoDetect=off\n{gpus}", encoding="utf-8")
    # The executor's job step drops SLURM_CONF before it calls srun, which then would look for the machine's own Slurm.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
    srun.chmod(0o755)


def _user() -> str:
    """Name of the user that all runs as."""
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is gone (PR_SET_PDEATHSIG): no test leaves a daemon behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _started(cluster: Cluster, *command: str) -> subprocess.Popen[bytes]:
    """A daemon in the foreground, its output in the cluster's folder."""
    with (cluster.folder / f"{command[0]}.out").open("a") as output:
        return subprocess.Popen(
            command, env=cluster.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=_die_with_parent,
        )  # fmt: skip


def _stop(cluster: Cluster) -> None:
    """Stop the daemons, the last started first."""
    for process in reversed(cluster.daemons.values()):
        process.terminate()
        try:
            process.wait(timeout=WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cancel(cluster: Cluster) -> None:
    """End all jobs and their steps, which would outlive the daemons."""
    cluster.ask("scancel", f"--user={_user()}")
    end = time.monotonic() + WAIT
    while cluster.ask("squeue", "--noheader") and time.monotonic() < end:
        time.sleep(0.1)
    for process in steps(cluster):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def steps(cluster: Cluster) -> list[int]:
    """Processes of the cluster's job steps that are still there: slurmstepd with its SLURM_CONF."""
    own, found = f"SLURM_CONF={cluster.folder}/slurm.conf".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, environment = (place / "comm").read_text(), (place / "environ").read_bytes()
            if name.strip() == "slurmstepd" and own in environment.split(b"\0"):
                found.append(int(place.name))
    return found


def _offspring(process: int) -> list[int]:
    """All processes that a process has started, and those that these have."""
    children = Path(f"/proc/{process}/task/{process}/children")
    with contextlib.suppress(OSError):
        return [each for child in map(int, children.read_text().split()) for each in (child, *_offspring(child))]
    return []


def _wait_for(answer: Callable[[], list[str]], cluster: Cluster) -> None:
    """Wait until something is answered; RuntimeError with what the daemons said when nothing is."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.SubprocessError):
            if answer():
                return
        time.sleep(0.1)
    said = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(cluster.folder.glob("*.out")))
    raise RuntimeError(f"the Slurm in {cluster.folder} did not start:\n{said}")
