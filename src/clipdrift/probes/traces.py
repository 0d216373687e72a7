"""Two dear readings of a few images: attention flow, and the gradient's receptive field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipdrift.probes.attention import entropy_bits, erf95
from clipdrift.probes.attention_maps import (
    BlockAttention,
    attention_sink,
    has_cls_token,
)
from clipdrift.probes.capture import eval_mode
from clipdrift.probes.flow import MOST_TOKENS, attention_flow
from clipdrift.probes.gradient import gradient_energy

FLOW_IMAGES, GRADIENT_IMAGES = 4, 16
"""Spread evenly over the probe set."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Image by image, float32 on the CPU; flows of 4 images, gradients of 16.

    Flows are None of a tower without a CLS token, or of more than 200 tokens.
    """

    gradient_erf95: Tensor
    """[16] smallest share of patches that holds 0.95 of the squared gradient of the embedding."""
    flow_erf95: Tensor | None = None
    """[4] the same of attention flow, its patches as shares of their sum."""
    flow_entropy_bits: Tensor | None = None
    """[4]"""


def spread(n_images: int, few: int) -> list[int]:
    """Places of a few images, evenly over all of them.

    >>> spread(5, 3), spread(2, 3)
    ([0, 2, 4], [0, 1])
    """
    return sorted(set(np.linspace(0, n_images - 1, few).round().astype(int).tolist()))


def read_traces(encode: Callable[[Tensor], Tensor], vision_model: Any, pixels: Tensor) -> Traces:
    """Flow and gradient of a tower as it is now, adapters and all.

    Args:
        encode: [B, 3, S, S] -> embeddings [B, E], through `vision_model`.
        pixels: [16, 3, S, S], normalised; flows are read on a quarter of them.
    """
    with eval_mode(vision_model):
        energy = gradient_energy(encode, pixels, vision_model.config.patch_size)
        found = {"gradient_erf95": erf95(energy)}
        if has_cls_token(vision_model):
            few = pixels[spread(len(pixels), FLOW_IMAGES)]
            maps = _maps(encode, vision_model, few)
            if maps.shape[-1] <= MOST_TOKENS:
                flow = torch.from_numpy(np.stack([attention_flow(one) for one in maps.numpy()]))
                share = flow / flow.sum(dim=1, keepdim=True)
                found["flow_erf95"], found["flow_entropy_bits"] = erf95(share), entropy_bits(share)
    return Traces(**{name: values.float().cpu() for name, values in found.items()})


def _maps(encode: Callable[[Tensor], Tensor], vision_model: Any, pixels: Tensor) -> Tensor:
    """[B, L, T, T] attention, mean over heads, in float64."""
    maps: list[Tensor] = []

    def keep(block: int, attention: BlockAttention) -> None:
        maps.append(attention.mean.cpu().double())

    with attention_sink(vision_model, keep), torch.no_grad():
        encode(pixels)
    return torch.stack(maps, dim=1)
