"""What this machine has to compute on, and what each kind of device cannot do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.errors import ExecutorError, Fault

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def choose_device(device: str) -> str:
    """ "auto" -> "cuda", "mps" or "xpu" where torch finds one, else "cpu"; a device as it is.

    Raises:
        ExecutorError: if this machine has no device of that name.
    """
    gpus = _gpus()
    kind = gpus[0].split(":")[0] if gpus else "cpu"
    if device == "auto":
        return kind
    if device not in ("cpu", kind, *gpus):
        seen = ", ".join(gpus) or "no GPU"
        raise ExecutorError(Fault("device", f"one of cpu, {seen}", device, "Choose a --device"))
    return device


def every_device(device: str) -> tuple[str, ...]:
    """The devices that a name stands for here: "cuda" for every GPU, one by one.

    Raises:
        ExecutorError: if this machine has no device of that name.
    """
    chosen = choose_device(device)
    return tuple(gpu for gpu in _gpus() if gpu.split(":")[0] == chosen) or (chosen,)


def _gpus() -> tuple[str, ...]:
    """Every device of the one kind that torch drives here: "cuda:0", "cuda:1"; "mps:0"."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = torch.accelerator.device_count() if found is not None else 0
    return tuple(f"{found.type}:{i}" for i in range(there)) if found is not None else ()


def supports_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it is ten times slower.

    Of Apple's mps it is not known well enough: it trains in float32.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text() if kind == "cpu" else ""
    except OSError:  # macOS, Windows
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def has_fused_adamw(device: torch.device) -> bool:
    """Whether the optimiser may take its step as one kernel; the numbers are those of many."""
    return device.type in ("cpu", "cuda")


def for_float64(x: Tensor) -> Tensor:
    """A tensor where it can be summed in float64: on the CPU if its device has none (mps, xpu)."""
    return x if x.device.type in ("cpu", "cuda", "meta") else x.cpu()


def can_compile(device: torch.device) -> bool:
    """Whether torch has the compiler that this device asks for."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    compilers = ("g++", "clang++", "c++")
    return device.type == "cpu" and any(shutil.which(name) for name in compilers)


def generator_state(device: torch.device) -> Tensor | None:
    """Where a device's own generator stands, which dropout draws from; None of the CPU."""
    import torch

    if device.type == "cpu":
        return None
    module, place = torch.get_device_module(device), () if device.type == "mps" else (device,)
    state: Tensor = module.get_rng_state(*place)
    return state


def set_generator_state(device: torch.device, state: Tensor) -> None:
    """Put it back; `state` as `generator_state` gave it, on the CPU."""
    import torch

    place = () if device.type == "mps" else (device,)
    torch.get_device_module(device).set_rng_state(state, *place)


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
