"""Bottleneck adapters (Houlsby et al. 2019): a small residual network behind sub-layers.

The output h of a sub-layer of a block goes on as h + W_up phi(W_down h + b_down) + b_up, before the
block adds its residual: with `after: [attention, mlp]` as in the paper, with `[mlp]` as in Pfeiffer
et al. 2021. Theirs start near the identity; here W_up and b_up start at zero, as in AdaptFormer of
Chen et al. 2022, so that they start at it exactly. Layer norms stay frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder
from clipdrift.errors import Fault, MethodError
from clipdrift.spec.methods import AdapterSpec

FILE = "adapters.safetensors"
PLACES = {"attention": "self_attn.out_proj", "mlp": "mlp.fc2"}
"""The last layer of each sub-layer of a block."""


class Bottleneck(nn.Module):
    """A linear layer with an adapter on its output: [..., D] -> [..., D]."""

    def __init__(self, base: nn.Linear, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.base, self.activation = base, activation
        self.down = nn.Linear(base.out_features, width)
        self.up = nn.Linear(width, base.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.to(base.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.base(x)
        update: Tensor = self.up(self.activation(self.down(h)))
        return h + update


def adapt(encoder: ImageEncoder, spec: AdapterSpec, seed: int) -> None:
    """Put adapters into every block, in place; nothing changes yet.

    Raises:
        MethodError: if the bottleneck is wider than the tower.
    """
    blocks: Any = encoder.tower.encoder.layers  # type: ignore[union-attr]
    _check(blocks, spec)
    # torch draws W_down from the global generator: seed it here and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for block in blocks:
            for place in sorted(spec.after):
                _insert(block, PLACES[place], spec)


def effective_state(encoder: ImageEncoder) -> None:
    """No plain weights amount to a tower with non-linear adapters."""


def _insert(block: Any, path: str, spec: AdapterSpec) -> None:
    parent, name = path.split(".")
    holder = getattr(block, parent)
    activation = nn.GELU() if spec.activation == "gelu" else nn.ReLU()
    setattr(holder, name, Bottleneck(getattr(holder, name), spec.bottleneck, activation))


def _check(blocks: Any, spec: AdapterSpec) -> None:
    width = int(blocks[0].mlp.fc2.out_features)
    if spec.bottleneck > width:
        where, got = f"method {spec.name} bottleneck", str(spec.bottleneck)
        raise MethodError(Fault(where, f"at most the tower's width {width}", got, "Lower it"))
