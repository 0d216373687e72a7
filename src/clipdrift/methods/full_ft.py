"""Full fine-tuning: every weight of a tower trains."""

from __future__ import annotations

from clipdrift.backbone import Encoder
from clipdrift.methods.tower_weights import effective_state
from clipdrift.spec.methods import FullFtSpec

FILE = "vision.safetensors"

__all__ = ["FILE", "adapt", "effective_state"]


def adapt(encoder: Encoder, spec: FullFtSpec, seed: int) -> None:
    """Let the whole tower train."""
    encoder.tower.requires_grad_(True)
