"""Partial fine-tuning: the last blocks of the vision tower and its final layer norm train."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from clipdrift.backbone import ImageEncoder
from clipdrift.errors import Fault, MethodError
from clipdrift.methods.tower_weights import effective_state, restore_trained, save_trained
from clipdrift.spec.methods import LastBlocksSpec

FILE = "last_blocks.safetensors"

__all__ = ["adapt", "effective_state", "restore", "save"]


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


def save(encoder: ImageEncoder, folder: Path) -> None:
    """Write the weights that trained."""
    save_trained(encoder, folder / FILE)


def restore(encoder: ImageEncoder, spec: LastBlocksSpec, folder: Path) -> None:
    """Read the weights that trained back, key by key."""
    adapt(encoder, spec, seed=0)
    restore_trained(encoder, folder / FILE)
