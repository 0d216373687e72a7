"""Adaptation methods: one file per family, each a handful of functions, no inheritance.

A family says what of the vision tower trains (`adapt`), what its weights amount to without any
wrapper (`effective_state`), and how it is saved and restored exactly (`save`, `restore`).
`effective_state` is None for families whose tower no plain weights amount to, such as adapters
with a non-linearity or prompts: the guard then holds the live encoder against one built anew, and
what needs plain weights is null. Projection and head are the same business for all methods and live
in `adapted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift.backbone import ImageEncoder
from clipdrift.methods import bitfit, full_ft, last_blocks, linear_probe, lora, lp_ft


@dataclass(frozen=True)
class Family:
    """The functions of one method family."""

    adapt: Callable[[ImageEncoder, Any, int], None]
    effective_state: Callable[[ImageEncoder], dict[str, Tensor] | None]
    save: Callable[[ImageEncoder, Path], None]
    restore: Callable[[ImageEncoder, Any, Path], None]


FAMILIES: dict[str, Family] = {
    name: Family(module.adapt, module.effective_state, module.save, module.restore)
    for name, module in {
        "bitfit": bitfit,
        "full_ft": full_ft,
        "last_blocks": last_blocks,
        "linear_probe": linear_probe,
        "lora": lora,
        "lp_ft": lp_ft,
    }.items()
}
