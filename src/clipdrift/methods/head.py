"""The classifier on the encoder: a linear layer that trains, or the class texts as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextHead(nn.Module):
    """Zero-shot classification: logits exp(s) cos(f, t_c), exp(s) the checkpoint's logit scale.

    `weight` holds exp(s) t_c with unit class embeddings t_c and does not train. Logits are float32
    under any precision of the encoder: at CLIP's scale of 100, bfloat16 has steps of 1/8 and more.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.in_features = width
        self.weight = nn.Parameter(torch.zeros(n_classes, width), requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, E] un-normalised embeddings -> logits [B, C]."""
        with torch.autocast(features.device.type, enabled=False):
            unit = nn.functional.normalize(features.float(), dim=-1)
            return unit @ self.weight.T


Head = nn.Linear | TextHead


@torch.no_grad()
def at_texts(head: Head, text_features: Tensor, logit_scale: float) -> None:
    """Put a head at the class texts; a linear one at the unit embeddings, without the scale.

    Args:
        text_features: [C, E] unit class embeddings.
    """
    if isinstance(head, nn.Linear):
        head.weight.copy_(text_features)
        head.bias.zero_()
    else:
        head.weight.copy_(logit_scale * text_features)


@torch.no_grad()
def at_random(head: nn.Linear, seed: int) -> None:
    """torch's default for linear layers, U(-1/sqrt(E), 1/sqrt(E)), from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    bound = head.in_features**-0.5
    for parameter in (head.weight, head.bias):
        draw = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
        parameter.copy_(draw)
