"""Adaptation methods: one file per family, each a handful of functions, no inheritance.

A family says what of a tower trains (`adapt`), what its weights amount to without any
wrapper (`effective_state`), and how it is saved and restored exactly (`save`, `restore`).
`effective_state` is None for families whose tower no plain weights amount to, such as adapters
with a non-linearity or prompts: the guard then holds the live encoder against one built anew, and
what needs plain weights is null. Projection and head are the same business for all methods and live
in `adapted`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clipdrift import plugins
from clipdrift.backbone import Encoder
from clipdrift.errors import Fault
from clipdrift.methods import (
    adapter,
    bitfit,
    full_ft,
    last_blocks,
    linear_probe,
    lora,
    lp_ft,
    peft_layers,
    vpt,
)
from clipdrift.methods.tower_weights import kept_in


@dataclass(frozen=True)
class Family:
    """The functions of one method family.

    start_faults: adapted encoder, untouched encoder, spec -> what only a trial shows to be wrong,
    before anything is trained. in_place: whether weights between untouched and adapted can be set
    in the tensors that train; else they are read on a plain tower.
    moves_at_start: whether the encoder differs from the baseline before the first step.
    """

    adapt: Callable[[Encoder, Any, int], None]
    effective_state: Callable[[Encoder], dict[str, Tensor] | None]
    save: Callable[[Encoder, Path], None]
    restore: Callable[[Encoder, Any, Path], None]
    start_faults: Callable[[Encoder, Encoder, Any], list[Fault]] = lambda *_: []
    in_place: bool = True
    moves_at_start: bool = False


def _family(module: Any) -> Family:
    return Family(module.adapt, module.effective_state, module.save, module.restore)


def _by_name(module: Any) -> Family:
    """A family that is saved and restored as `module.FILE`, the tower's weights that train."""
    save, restore = kept_in(module.FILE, module.adapt)
    return Family(module.adapt, module.effective_state, save, restore)


FUNCTIONS = ("adapt", "effective_state", "save", "restore")
FAMILIES: dict[str, Family] = {
    "adapter": _by_name(adapter),
    "bitfit": _by_name(bitfit),
    "full_ft": _by_name(full_ft),
    "last_blocks": _by_name(last_blocks),
    "linear_probe": _family(linear_probe),
    "lora": _family(lora),
    "lp_ft": _by_name(lp_ft),
    "peft": replace(_family(peft_layers), start_faults=peft_layers.start_faults, in_place=False),
    "vpt": replace(_by_name(vpt), moves_at_start=True),
}


def family_of(spec: Any) -> Family:
    """The family of a method's spec, ours or that of another package.

    Raises:
        PluginError: if a package's is not there, cannot be imported or is none.
    """
    return _plugged(spec) if spec.kind == "plugin" else FAMILIES[spec.kind]


def _plugged(spec: Any) -> Family:
    where = f"method {spec.name} type"
    plugin = plugins.find("methods", spec.type, where, ours=FAMILIES)
    found = plugins.load(plugin, where)
    if not isinstance(found, Family):
        if not all(callable(getattr(found, name, None)) for name in FUNCTIONS):
            expected = "a clipdrift.methods.Family, or a module with adapt, effective_state, save "
            raise plugins.wrong_type(plugin, where, f"{expected}and restore", found)
        found = _family(found)
    adapt = found.adapt

    def named(encoder: Encoder, given: Any, seed: int) -> None:
        plugins.call(plugin, where, lambda: adapt(encoder, given, seed))

    return replace(found, adapt=named)
