"""A SLURM of two nodes on this machine, with its own configuration, ports and keys."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONFIGURATION = """\
ClusterName=clipdrift-test
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""No cgroups and no accounting: neither is to be had in every container."""


def missing_programs() -> list[str]:
    return [name for name in NEEDED if shutil.which(name, path=PATH) is None]


@contextmanager
def slurm_cluster(folder: Path, *, cpus: int) -> Iterator[Path]:
    """Started on the loopback until the block ends; gives the path for SLURM_CONF.

    Args:
        folder: must be short, as a socket's path is limited to 107 bytes.
        cpus: of each of the two nodes, whatever this machine has.
    """
    configuration = folder / "slurm.conf"
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(configuration)}
    (folder / "state").mkdir()
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, user=pwd.getpwuid(os.getuid()).pw_name, ports=_free_ports(3), cpus=cpus
        )
    )
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in (
            _munged(folder),
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "one"],
            ["slurmd", "-D", "-N", "two"],
        ):
            program = shutil.which(command[0], path=PATH)
            assert program is not None
            log = (folder / f"{len(processes)}.out").open("wb")
            processes.append(
                subprocess.Popen(
                    [program, *command[1:]], env=environment, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
            if command[0] == "munged":
                _wait_for((folder / "munge.sock").exists, folder)
        _wait_for(lambda: _idle_nodes(environment) == 2, folder)
        yield configuration
    finally:
        subprocess.run(["scancel", "--user", str(os.getuid())], env=environment, check=False)
        time.sleep(0.5)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _munged(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    names = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = [f"--{option}={folder}/munge.{end}" for option, end in names.items()]
    return ["munged", "--foreground", "--force", f"--key-file={key}", *files]


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _idle_nodes(environment: dict[str, str]) -> int:
    done = subprocess.run(
        ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], env=environment, capture_output=True
    )
    return len(done.stdout.split())


def _wait_for(there: object, folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not there():  # type: ignore[operator]
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path.name}: {path.read_text(errors='replace')[-600:]}"
                for path in sorted([*folder.glob("*.log"), *folder.glob("*.out")])
            )
            raise TimeoutError(f"SLURM did not start\n{logs}")
        time.sleep(0.1)
