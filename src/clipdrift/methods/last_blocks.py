"""Partial fine-tuning: the last blocks of the vision tower and its final layer norm train."""

from __future__ import annotations

from torch import nn

from clipdrift.backbone import ImageEncoder
from clipdrift.errors import Fault, MethodError
from clipdrift.methods.tower_weights import effective_state
from clipdrift.spec.methods import LastBlocksSpec

FILE = "last_blocks.safetensors"

__all__ = ["FILE", "adapt", "effective_state"]


def adapt(encoder: ImageEncoder, spec: LastBlocksSpec, seed: int) -> None:
    """Let the last `spec.blocks` blocks and the post layer norm train, and no pooling head.

    Raises:
        MethodError: if the tower has fewer blocks.
    """
    blocks: nn.ModuleList = encoder.tower.encoder.layers  # type: ignore[union-attr, assignment]
    if spec.blocks > len(blocks):
        raise MethodError(
            Fault(
                f"method {spec.name}",
                f"at most {len(blocks)} blocks, as the backbone has",
                str(spec.blocks),
                "Lower blocks",
            )
        )
    blocks[-spec.blocks :].requires_grad_(True)
    encoder.tower.post_layernorm.requires_grad_(True)
