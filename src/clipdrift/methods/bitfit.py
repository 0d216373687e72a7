"""BitFit (Ben Zaken, Ravfogel & Goldberg 2022): only the biases of the vision tower train.

Those of linear layers and of layer norms, as in the paper; weights and embeddings are frozen.
"""

from __future__ import annotations

from pathlib import Path

from clipdrift.backbone import ImageEncoder
from clipdrift.methods.tower_weights import effective_state, restore_trained, save_trained
from clipdrift.spec.methods import BitFitSpec

FILE = "biases.safetensors"

__all__ = ["adapt", "effective_state", "restore", "save"]


def adapt(encoder: ImageEncoder, spec: BitFitSpec, seed: int) -> None:
    """Let every bias of the tower train, those of a pooling head too."""
    for name, parameter in encoder.tower.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))


def save(encoder: ImageEncoder, folder: Path) -> None:
    """Write the biases."""
    save_trained(encoder, folder / FILE)


def restore(encoder: ImageEncoder, spec: BitFitSpec, folder: Path) -> None:
    """Read the biases back, key by key."""
    adapt(encoder, spec, seed=0)
    restore_trained(encoder, folder / FILE)
