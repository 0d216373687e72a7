"""Memory of this machine and its devices: how much there is, was used, and whether it ran out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NO_TENSOR = ("DefaultCPUAllocator", "MPS backend out of memory")
"""What torch says of a tensor that found no room, without an error of its own kind."""
NO_PROCESS = ("can't allocate memory", "could not create a primitive")
"""What torch and oneDNN say where a process has no room left for anything: a new one may have."""


def free_memory_bytes(device: torch.device) -> int:
    """Memory that could be had now: of the device, or of the system where they share one."""
    import psutil

    module = _module(device.type)
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def peak_memory_bytes(device: str) -> int:
    """Largest memory so far of the device, or resident of this process where it counts none."""
    import psutil

    module = _module(device)
    if hasattr(module, "max_memory_allocated"):
        return int(module.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def forget_peak(device: str) -> None:
    """Let `peak_memory_bytes` of a device count from now."""
    module = _module(device)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)


def give_back(device: torch.device) -> None:
    """Return what torch holds of a device and does not use."""
    module = _module(device.type)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def no_room_for_tensor(error: BaseException) -> bool:
    """Whether an error says that a tensor was too large, so that smaller ones may do."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _says(error, NO_TENSOR)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a tensor or of the whole process."""
    return no_room_for_tensor(error) or _says(error, NO_PROCESS)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(some in str(error) for some in words)


def _module(device: str) -> Any:
    """torch.cuda, torch.xpu, torch.mps; None of the CPU."""
    import torch

    kind = torch.device(device).type
    return None if kind == "cpu" else torch.get_device_module(kind)
