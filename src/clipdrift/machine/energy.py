"""Energy that a command took: from the machine's own counters where it has them, else estimated.

References: the powercap interface of Linux (RAPL, microjoules since boot, which wrap around);
NVML's nvmlDeviceGetTotalEnergyConsumption (millijoules); Lannelongue et al. (2021), "Green
Algorithms: Quantifying the Carbon Footprint of Computation", for the watts of an unknown core.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "*-rapl:?"
"""Whole processors; what lies below them is part of them."""
WATTS_A_CORE = 12.0
JOULES_A_KWH = 3.6e6


class Energy(NamedTuple):
    """kwh: None where nothing is known of it. how: what it is, or why there is none."""

    kwh: float | None
    how: str

    @property
    def words(self) -> str:
        """
        >>> Energy(0.0123, "estimate").words, Energy(None, "a GPU without counters").words
        ('0.012 kWh (estimate)', 'energy unknown: a GPU without counters')
        """
        return (
            f"energy unknown: {self.how}"
            if self.kwh is None
            else f"{self.kwh:.2g} kWh ({self.how})"
        )


def estimated(core_seconds: float, *, on_gpu: bool) -> Energy:
    """What so much work may take; of a GPU nothing is guessed."""
    if on_gpu:
        return Energy(None, "the GPU's counter cannot be read")
    hours = core_seconds / 3600
    how = f"estimate: {hours:.2f} core hours at {WATTS_A_CORE:g} W, memory and rest left out"
    return Energy(hours * WATTS_A_CORE / 1000, how)


class Counter(NamedTuple):
    """Joules since some moment, and at how many it begins again at 0."""

    joules: float
    wraps_at: float


class Meter:
    """The counters of this machine, from when it is made."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.powercap = powercap
        self.before = self._read()

    def so_far(self, core_seconds: float, *, on_gpu: bool) -> Energy:
        """What the machine took since, all its programs together; else an estimate.

        Args:
            core_seconds: of the work, for the estimate. on_gpu: whether a GPU did it.
        """
        kinds = {name.split()[0] for name in self.before}
        if self.before and ("GPU" in kinds or not on_gpu):
            return Energy(self._since(), f"counted, whole machine: {', '.join(sorted(kinds))}")
        return estimated(core_seconds, on_gpu=on_gpu)

    def _since(self) -> float:
        now = self._read()
        joules = 0.0
        for name, (start, wraps_at) in self.before.items():
            end = now[name].joules if name in now else start
            joules += end - start if end >= start else end + wraps_at - start
        return joules / JOULES_A_KWH

    def _read(self) -> Mapping[str, Counter]:
        return {**_processors(self.powercap), **_gpus()}


def _processors(powercap: Path) -> dict[str, Counter]:
    found = {}
    for folder in sorted(powercap.glob(PACKAGES)):
        with suppress(OSError, ValueError):  # readable for root alone on most systems
            joules, most = (
                int((folder / name).read_text()) / 1e6
                for name in ("energy_uj", "max_energy_range_uj")
            )
            found[f"processor {folder.name}"] = Counter(joules, most)
    return found


def _gpus() -> dict[str, Counter]:
    try:
        import pynvml
    except ImportError:
        return {}
    nvml: Any = pynvml
    found = {}
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        for i in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(i)
            joules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
            found[f"GPU {i}"] = Counter(joules, 2**64 / 1000)
    return found
