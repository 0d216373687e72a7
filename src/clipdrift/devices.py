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
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


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


__all__ = ["available_cores", "choose_device", "every_device", "free_memory_bytes"]
