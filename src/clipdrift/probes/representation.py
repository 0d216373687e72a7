"""How far representations moved: linear CKA of activations, cosine distance of embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize


def linear_cka(x: Tensor, y: Tensor) -> float | None:
    """Linear centred kernel alignment of two sets of activations on the same images.

    ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y centred over images. Float64 throughout, over all
    images at once: minibatch estimates can be NaN.

    Args:
        x: [N, D] activations.
        y: [N, E] activations of the same images in the same order.

    Returns:
        0 to 1, without unit; 1 for X and any rotation, shift or scaling of it. None (undefined)
        if the images do not differ in x or in y, or a value is not finite.

    Raises:
        ValueError: if x and y are not matrices of as many rows.

    Reference: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited",
    section 3, linear kernel.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> round(linear_cka(x, 3 * x + 1), 12), linear_cka(x, torch.ones(3, 2))
    (1.0, None)
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        shapes = f"{list(x.shape)} and {list(y.shape)}"
        raise ValueError(
            f"linear_cka: expected [N, D] and [N, E], got {shapes}. Use one probe set."
        )
    centred_x, centred_y = _centred(x), _centred(y)
    if centred_x is None or centred_y is None:
        return None
    cross = vector_norm(centred_y.T @ centred_x).item() ** 2
    own = vector_norm(centred_x.T @ centred_x) * vector_norm(centred_y.T @ centred_y)
    return float(min(1.0, cross / own.item()))


def _centred(x: Tensor) -> Tensor | None:
    """x less its mean over images at unit norm, or None where nothing is left beyond rounding."""
    wide = x.double()
    centred = wide - wide.mean(dim=0)
    size = vector_norm(centred)
    rounding = len(x) * torch.finfo(torch.float64).eps * vector_norm(wide)
    # Written so that NaN counts as nothing left. CKA does not see the scale: unit norm keeps
    # fourth powers of very small or large activations inside the range of float64.
    return centred / size if bool(size > rounding) and bool(size.isfinite()) else None


def embedding_drift_per_image(x: Tensor, y: Tensor) -> Tensor:
    """Cosine distance of each image's two embeddings.

    1 - cos(x_i, y_i), computed as ||x_i / |x_i| - y_i / |y_i|||^2 / 2: the same number, but exactly
    0 for equal embeddings and without cancellation for nearly equal ones.

    Args:
        x: [N, E] embeddings, need not be normalised.
        y: [N, E] embeddings of the same images.

    Returns:
        [N] float64, 0 (same direction) to 2 (opposite). NaN where an embedding is zero.

    Raises:
        ValueError: if the shapes differ.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> y = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    >>> embedding_drift_per_image(x, y).tolist()
    [0.0, 1.0, 2.0]
    """
    if x.shape != y.shape or x.ndim != 2:
        shapes = f"{list(x.shape)} and {list(y.shape)}"
        raise ValueError(
            f"embedding_drift: expected [N, E] twice, got {shapes}. Use one probe set."
        )
    # eps=0: a zero vector has no direction and becomes NaN, not a distance of 0.5.
    unit_x, unit_y = (normalize(v.double(), dim=-1, eps=0.0) for v in (x, y))
    return (unit_x - unit_y).square().sum(dim=-1) / 2


def embedding_drift(x: Tensor, y: Tensor) -> float | None:
    """Mean cosine distance of projected image embeddings: 1 - mean_i cos(x_i, y_i).

    Args:
        x: [N, E] adapted embeddings, need not be normalised.
        y: [N, E] baseline embeddings of the same images.

    Returns:
        0 to 2, without unit, exactly 0 for equal tensors (see `embedding_drift_per_image`). None
        (undefined) if an embedding is zero or not finite, or there are no images.

    Raises:
        ValueError: if the shapes differ.

    >>> embedding_drift(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    1.0
    """
    mean = embedding_drift_per_image(x, y).mean().item()
    return mean if math.isfinite(mean) else None
