"""The tower's own weights: as they are, and those that train, saved and read back by name."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from clipdrift.backbone import ImageEncoder
from clipdrift.methods.weights_file import assign, load_tensors, save_tensors


def effective_state(encoder: ImageEncoder) -> dict[str, Tensor]:
    """The tower's weights as they are."""
    return {name: p.detach() for name, p in encoder.tower.named_parameters()}


def trained_weights(encoder: ImageEncoder) -> dict[str, Tensor]:
    """Those of the tower's weights that train."""
    return {n: p.detach() for n, p in encoder.tower.named_parameters() if p.requires_grad}


def save_trained(encoder: ImageEncoder, path: Path) -> None:
    """Write the weights that train."""
    save_tensors(trained_weights(encoder), path)


def restore_trained(encoder: ImageEncoder, path: Path) -> None:
    """Read the weights that train back, key by key."""
    assign(trained_weights(encoder), load_tensors(path), where=str(path))
