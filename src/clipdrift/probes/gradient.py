"""The gradient's effective receptive field: where in the image an embedding is sensitive."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

DRAWS = 1
"""Random directions of each image's embedding whose gradients are taken."""


def gradient_energy(
    encode: Callable[[Tensor], Tensor], pixels: Tensor, patch_size: int, draws: int = DRAWS
) -> Tensor:
    """Share of the squared gradient of the embedding with respect to the pixels, patch by patch.

    g_p = sum over pixels of patch p of sum_k (d e_k / d x)^2, the latter as the mean of
    (d <v, e> / d x)^2 over random signs v, which has that expectation. Each image has signs of its
    own, the same for every model, so two models are compared on the same draws.

    Args:
        encode: [B, 3, S, S] -> embeddings [B, E], a tower in eval mode.
        pixels: [B, 3, S, S], normalised. patch_size: pixels along a side of a patch.

    Returns:
        [B, P] float64 on the CPU, sums to 1; P patches row by row. NaN where no gradient is.

    Reference: Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional
    Neural Networks", section 2, of one unit; here of all of the embedding. The random signs are
    Hutchinson's estimate of a trace (1989).
    """
    generator = torch.Generator().manual_seed(0)
    inputs = pixels.detach().clone().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(pixels.device.type, enabled=False):
        embeddings = encode(inputs)
        total = torch.zeros_like(inputs)
        for draw in range(draws):
            signs = torch.randint(0, 2, embeddings.shape, generator=generator) * 2 - 1
            score = (embeddings * signs.to(embeddings)).sum()
            (gradient,) = torch.autograd.grad(score, inputs, retain_graph=draw + 1 < draws)
            total += gradient.square()
    energy = avg_pool2d(total.sum(dim=1), patch_size).flatten(1).cpu().double()
    return energy / energy.sum(dim=1, keepdim=True)
