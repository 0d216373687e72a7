"""Under which software and hardware a run was measured."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "clipdrift",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "safetensors",
    "numpy",
    "scipy",
    "Pillow",
)


def provenance(device: str) -> dict[str, Any]:
    """Versions, commit, hardware and the torch settings that can change a number."""
    import torch

    return {
        "packages": packages(),
        "python": platform.python_version(),
        "code": _commit(),
        "platform": platform.platform(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


@lru_cache(maxsize=1)
def packages() -> dict[str, str]:
    """Name -> version of every package that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@lru_cache(maxsize=1)
def _commit() -> dict[str, Any]:
    """Commit and dirty flag of the checkout this package runs from; nulls when installed."""
    package = Path(__file__).parent.parent
    head = _git(package, "rev-parse", "HEAD")
    # A checkout of something else that merely holds this environment does not count.
    if head is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"commit": head, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device_name(device: str) -> str:
    import torch

    kind = torch.device(device).type
    if kind in ("cuda", "xpu"):
        return str(torch.get_device_module(kind).get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS, Windows
        return f"{platform.processor() or platform.machine()} ({kind})"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x{len(names)}" if names else platform.machine()
