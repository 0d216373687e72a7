"""The image path: what is trained, probed and scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CPU_TOKENS = 1600
"""Tokens that a CPU takes through the tower at a time where nothing trains: what a block makes of
them stays near the cache, and products are still large enough for their full rate."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights by name, as they are and without a gradient; none of an identity."""
    return {name: p.detach() for name, p in module.named_parameters()}


def n_tokens(tower: nn.Module) -> int:
    """T of a vision tower, by the numbers of its positions: their embedding may be adapted."""
    positions: Tensor = tower.embeddings.position_ids  # type: ignore[union-attr, assignment]
    return positions.shape[-1]


class ImageEncoder(nn.Module):
    """uint8 images -> un-normalised image embeddings, through the vision tower as it is now.

    Whatever adapts the tower does so in place, so the path that is trained, probed and scored
    is one and the same. The projection is the identity, without weights, where a model has none.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, tower: nn.Module, projection: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] with the checkpoint's mean and std."""
        return (pixels.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def pooled_trial(self) -> Tensor:
        """Pooled [2, D] of images of noise, always the same: whether two towers read alike."""
        size: int = self.tower.config.image_size  # type: ignore[union-attr, assignment]
        values = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        pooled: Tensor = self.tower(pixel_values=values.to(self.mean.device)).pooler_output
        return pooled

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> embeddings [B, E]."""
        pooled: Tensor = self.tower(pixel_values=pixel_values).pooler_output
        embeddings: Tensor = self.projection(pooled)
        return embeddings

    def forward(self, pixels: Tensor) -> Tensor:
        if torch.is_grad_enabled() or pixels.is_cuda:
            return self.encode(self.normalise(pixels))
        parts = torch.split(pixels, max(1, CPU_TOKENS // n_tokens(self.tower)))
        # One projection of them all: the bits of a product can depend on its rows being very few.
        pooled = [self.tower(pixel_values=self.normalise(part)).pooler_output for part in parts]
        embeddings: Tensor = self.projection(torch.cat(pooled))
        return embeddings
