"""A checkpoint against its baseline: does it act, is it whole, does it read images alike?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.checkpoint.adapter import LoadedAdapter
from clipdrift.errors import Fault, RecordError
from clipdrift.methods.guard import ROUNDING, SHARE, relative

ARCHITECTURE = (
    "image_size",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
TRIED_IMAGES = 4


@dataclass(frozen=True)
class Finding:
    """One answer. `note` says what to know when reading the numbers, `wrong` that they mislead."""

    check: str
    status: Literal["ok", "note", "wrong"]
    text: str


def noise(size: int, device: torch.device) -> Tensor:
    """uint8 [4, S, S, 3]: a difference of weights shows on any image."""
    draw = torch.Generator().manual_seed(0)
    shape = (TRIED_IMAGES, size, size, 3)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8).to(device)


def require_same_architecture(found: Backbone, baseline: Backbone, where: str) -> None:
    """Drift compares block with block, and both read the same prepared images.

    Raises:
        RecordError: naming every size that differs.
    """
    ours, theirs = (b.model.config for b in (found, baseline))
    sizes = [
        (name, getattr(ours.vision_config, name), getattr(theirs.vision_config, name))
        for name in ARCHITECTURE
    ]
    sizes.append(("projection_dim", found.width, baseline.width))
    kinds = (found.architecture.name, baseline.architecture.name)
    sizes.append(("kind of model", *kinds))
    faults = [
        Fault(f"{where} {name}", f"{base} as in the baseline", str(own), "Name its own --baseline")
        for name, own, base in sizes
        if own != base
    ]
    if faults:
        raise RecordError(faults)


@torch.inference_mode()
def adapter_findings(loaded: LoadedAdapter, live: Backbone) -> list[Finding]:
    """Whether the adapters act on the image path, and act as their merged weights do."""
    images = noise(live.image_size, live.model.device)
    encoder = live.live_encoder()
    now = encoder(images)
    with loaded.switched_off():
        off = encoder(images)
    merged = replace(live, model=loaded.merged).live_encoder()(images)
    moved, apart = relative(now, off), relative(now, merged)
    active = not torch.equal(now, off)
    same = apart <= ROUNDING + SHARE * min(moved, 0.02)
    return [
        Finding("adapters active", "ok", f"yes: embeddings move by {moved:.2%}")
        if active
        else Finding(
            "adapters active", "wrong", "no: embeddings are those with the adapters switched off"
        ),
        Finding("live = merged", "ok", f"yes, within {apart:.1e}")
        if same
        else Finding("live = merged", "wrong", f"no: embeddings differ by {apart:.1e}"),
    ]


def movement_finding(found: Backbone, baseline: Backbone) -> Finding:
    """Whether a whole CLIP differs from the baseline in what reads images."""
    if _equal_parts(found, baseline, baseline.architecture.image_path):
        return Finding("vision weights", "note", "equal to the baseline's: nothing was adapted")
    return Finding("vision weights", "ok", "differ from the baseline's")


def text_changed(found: Backbone, baseline: Backbone) -> bool:
    """Whether class prompts are read by other weights than the baseline's."""
    return not _equal_parts(found, baseline, baseline.architecture.text_path)


def text_finding(changed: bool) -> Finding:
    if changed:
        return Finding(
            "text tower", "note", "differs from the baseline's: classes are read by its own"
        )
    return Finding("text tower", "ok", "equal to the baseline's")


def preprocessing_findings(
    found: Backbone, baseline: Backbone, *, own_channels: bool = True
) -> list[Finding]:
    """Activation, image size, mean and deviation, precision on disk.

    Args:
        own_channels: whether mean and deviation come from the checkpoint, not from the baseline.
    """
    acts = [b.model.config.vision_config.hidden_act for b in (found, baseline)]
    channels = [f"{_numbers(b.mean)} / {_numbers(b.std)}" for b in (found, baseline)]
    sizes = [f"{b.image_size} px" for b in (found, baseline)]
    return [
        _alike("activation", *acts, wrong=True),
        _alike("image size", *sizes, wrong=True),
        _alike("resize", found.resize_mode, baseline.resize_mode, wrong=True),
        _alike("mean / std", *channels, wrong=True)
        if own_channels
        else Finding("mean / std", "note", "none in the folder: the baseline's are used"),
        _alike("precision on disk", found.precision_on_disk, baseline.precision_on_disk),
    ]


def beside_findings(projection: str | None, head: Iterable[str]) -> list[Finding]:
    """What lies outside an adapter and may have been trained with it.

    Args:
        projection: where it comes from, in words; None if it is not in the folder.
    """
    names = ", ".join(sorted(head))
    return [
        Finding("projection", "ok", projection)
        if projection
        else Finding(
            "projection", "note", "none in the folder: the baseline's is used. If it was trained, "
            "these are not that model's numbers"
        ),
        Finding("classifier", "ok", f"there ({names}); zero-shot readings do not use it")
        if names
        else Finding("classifier", "note", "none in the folder: zero-shot readings need none"),
    ]  # fmt: skip


def _alike(check: str, own: str, base: str, *, wrong: bool = False) -> Finding:
    if own == base:
        return Finding(check, "ok", own)
    return Finding(check, "wrong" if wrong else "note", f"{own}, the baseline's is {base}")


def _equal_parts(found: Backbone, baseline: Backbone, names: Iterable[str]) -> bool:
    return all(_equal(found.model.get_submodule(n), baseline.model.get_submodule(n)) for n in names)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


__all__ = [
    "Finding",
    "adapter_findings",
    "beside_findings",
    "movement_finding",
    "preprocessing_findings",
    "require_same_architecture",
    "text_changed",
    "text_finding",
]
