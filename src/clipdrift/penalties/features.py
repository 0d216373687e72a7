"""Feature distillation: stay near the untouched encoder in embedding space."""

from __future__ import annotations

from torch import Tensor, nn


def feature_distance(live: Tensor, untouched: Tensor, *, normalised: bool) -> Tensor:
    """Squared distance of image embeddings to the untouched encoder's, mean over images.

    1/B sum_b ||z_b - z_b^0||_2^2, with z the projected embedding f or f / ||f||_2, for which it is
    2 - 2 cos(f_b, f_b^0).

    Args:
        live: [B, E] with its gradient.
        untouched: [B, E] of the same pixels, mirrored where they are.

    Returns:
        A scalar, 0 or more; at most 4 if normalised.

    Reference: Mukhoti et al. 2023, "Fine-tuning can cripple your foundation model" (LDIFS), which
    takes the squared distance of the outputs of several blocks; here it is that of the embedding
    alone, in which zero-shot classification happens.

    >>> import torch
    >>> a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0]])
    >>> feature_distance(a, b, normalised=False).item()
    9.0
    >>> round(feature_distance(a, b, normalised=True).item(), 6)  # the cosine is 4 / 5
    0.4
    """
    if normalised:
        live, untouched = (nn.functional.normalize(f, dim=-1) for f in (live, untouched))
    return (live - untouched).square().sum(dim=-1).mean()
