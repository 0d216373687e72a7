"""Linear probe: the tower stays as it is; only the head trains."""

from __future__ import annotations

from pathlib import Path

from clipdrift.backbone import ImageEncoder
from clipdrift.methods.tower_weights import effective_state
from clipdrift.spec.methods import LinearProbeSpec

__all__ = ["adapt", "effective_state", "restore", "save"]


def adapt(encoder: ImageEncoder, spec: LinearProbeSpec, seed: int) -> None:
    """Nothing of the tower trains."""
    encoder.tower.requires_grad_(False)


def save(encoder: ImageEncoder, folder: Path) -> None:
    """Nothing of the tower changed; the head is saved with the adapted model."""


def restore(encoder: ImageEncoder, spec: LinearProbeSpec, folder: Path) -> None:
    """Nothing of the tower changed."""
    adapt(encoder, spec, seed=0)
