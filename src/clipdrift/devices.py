"""What this machine has to compute on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.errors import ExecutorError, Fault

if TYPE_CHECKING:
    import torch


def choose_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, else "cpu"; any other name as it is."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def every_device(device: str) -> tuple[str, ...]:
    """The devices that a name stands for here: "cuda" for every GPU, one by one.

    Raises:
        ExecutorError: if a GPU is named that this machine does not have.
    """
    chosen = choose_device(device)
    if not chosen.startswith("cuda"):
        return (chosen,)
    import torch

    found = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    if chosen == "cuda" and found:
        return found
    if chosen not in found:
        seen = ", ".join(found) or "no GPU"
        raise ExecutorError(Fault("device", f"one of cpu, {seen}", chosen, "Choose a --device"))
    return (chosen,)


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
