"""What this machine has to compute on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.errors import ExecutorError, Fault

if TYPE_CHECKING:
    import torch


def choose_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, else "cpu"; a device of this machine as it is.

    Raises:
        ExecutorError: if this machine has no device of that name.
    """
    gpus = _gpus()
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in ("cpu", *gpus) and not (device == "cuda" and gpus):
        seen = ", ".join(gpus) or "no GPU"
        raise ExecutorError(Fault("device", f"one of cpu, {seen}", device, "Choose a --device"))
    return device


def every_device(device: str) -> tuple[str, ...]:
    """The devices that a name stands for here: "cuda" for every GPU, one by one.

    Raises:
        ExecutorError: if this machine has no device of that name.
    """
    chosen = choose_device(device)
    return _gpus() if chosen == "cuda" else (chosen,)


def _gpus() -> tuple[str, ...]:
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{i}" for i in range(there))


def available_cores() -> int:
    """Cores this process may use, which a container or scheduler may have cut down."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
    return min(cores, _quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")) or cores)


def _quota(root: Path, member: Path) -> int | None:
    """Whole cores that the control groups of this process allow; None if they set no limit.

    Rounded down: of threads that wait for each other, one without time holds up all.

    Args:
        root: where the groups are mounted, version 2 or 1.
        member: names the groups of this process, `id:controllers:/path` a line.
    """
    try:
        groups = [line.split(":", 2)[1:] for line in member.read_text().splitlines()]
    except OSError:
        return None
    limits = []
    for controllers, path in groups:
        if "cpu" in controllers.split(",") or not controllers:
            top = root / controllers
            inner = top / path.strip().lstrip("/")
            limits += [
                _limit(folder)
                for folder in (inner, *inner.parents)
                if top in (folder, *folder.parents)
            ]
    known = [limit for limit in limits if limit is not None]
    return max(1, int(min(known))) if known else None


def _limit(group: Path) -> float | None:
    """Cores' worth of time that one control group may use."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def asked_threads() -> int | None:
    """Threads of a process by OMP_NUM_THREADS, as OpenMP and torch read it; None if it is unset."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def cpu_shares(workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """Processes at once on the CPU and threads of each, together no more than the cores.

    What is given stays as it is; OMP_NUM_THREADS stands for threads that are not given.
    """
    threads = threads or asked_threads()
    workers = workers or max(1, available_cores() // (threads or 1))
    return workers, threads or max(1, available_cores() // workers)


def limit_threads() -> None:
    """Keep torch in this process to the cores it may use: it counts those of the whole machine."""
    import torch

    if asked_threads() is None:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def strict_float32() -> None:
    """No TF32: it shifts drift readings by as much as fine-tuning does."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def crowded() -> str | None:
    """What to say of a machine that has more to do than cores; None if it has not."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return None
    cores = os.cpu_count() or 1  # the load is that of the machine, whatever is allowed here
    if load <= cores:
        return None
    return f"this machine is busy (load {load:.1f} on {cores} cores): all takes longer than alone"


def free_memory_bytes(device: torch.device) -> int:
    """Memory that could be had now, on the GPU or, for the CPU, from the system."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):  # macOS, Windows: there is no telling without a library
        return 2**32
