"""Full fine-tuning: every weight of the vision tower trains."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from clipdrift.backbone import ImageEncoder
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors
from clipdrift.spec.methods import FullFtSpec

FILE = "vision.safetensors"


def adapt(encoder: ImageEncoder, spec: FullFtSpec, seed: int) -> None:
    """Let the whole tower train."""
    encoder.tower.requires_grad_(True)


def effective_state(encoder: ImageEncoder) -> dict[str, Tensor]:
    """The tower's weights as they are."""
    return {name: p.detach() for name, p in encoder.tower.named_parameters()}


def save(encoder: ImageEncoder, folder: Path) -> None:
    """Write the full tower."""
    save_tensors(effective_state(encoder), folder / FILE)


def restore(encoder: ImageEncoder, spec: FullFtSpec, folder: Path) -> None:
    """Read the full tower back, key by key."""
    adapt(encoder, spec, seed=0)
    saved = load_tensors(folder / FILE)
    assign(dict(encoder.tower.named_parameters()), saved, where=str(folder / FILE))
