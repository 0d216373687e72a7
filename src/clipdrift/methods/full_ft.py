"""Full fine-tuning: every weight of the vision tower trains."""

from __future__ import annotations

from pathlib import Path

from clipdrift.backbone import ImageEncoder
from clipdrift.methods.tower_weights import effective_state, restore_trained, save_trained
from clipdrift.spec.methods import FullFtSpec

FILE = "vision.safetensors"

__all__ = ["adapt", "effective_state", "restore", "save"]


def adapt(encoder: ImageEncoder, spec: FullFtSpec, seed: int) -> None:
    """Let the whole tower train."""
    encoder.tower.requires_grad_(True)


def save(encoder: ImageEncoder, folder: Path) -> None:
    """Write the full tower."""
    save_trained(encoder, folder / FILE)


def restore(encoder: ImageEncoder, spec: FullFtSpec, folder: Path) -> None:
    """Read the full tower back, key by key."""
    adapt(encoder, spec, seed=0)
    restore_trained(encoder, folder / FILE)
