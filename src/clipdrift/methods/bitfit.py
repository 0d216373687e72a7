"""BitFit (Ben Zaken, Ravfogel & Goldberg 2022): only the biases of a tower train.

Those of linear layers and of layer norms, as in the paper; weights and embeddings are frozen.
"""

from __future__ import annotations

from clipdrift.backbone import Encoder
from clipdrift.methods.tower_weights import effective_state
from clipdrift.spec.methods import BitFitSpec

FILE = "biases.safetensors"

__all__ = ["FILE", "adapt", "effective_state"]


def adapt(encoder: Encoder, spec: BitFitSpec, seed: int) -> None:
    """Let every bias of the tower train, those of a pooling head too."""
    for name, parameter in encoder.tower.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
