"""LP-FT (Kumar et al. 2022): full fine-tuning from the head of a linear probe.

What the tower is and how it is kept is full fine-tuning; that the head is probed before the first
step is `run.head_first`'s.
"""

from __future__ import annotations

from clipdrift.backbone import Encoder
from clipdrift.methods.full_ft import FILE, effective_state
from clipdrift.spec.methods import LpFtSpec

__all__ = ["FILE", "adapt", "effective_state"]


def adapt(encoder: Encoder, spec: LpFtSpec, seed: int) -> None:
    """Let the whole tower train."""
    encoder.tower.requires_grad_(True)
