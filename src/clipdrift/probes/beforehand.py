"""What the untouched model tells of a training to come: its embeddings, and a first gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from clipdrift.probes.geometry import Floats, Labels
from clipdrift.probes.spectra import spectrum


def iimm(images: Floats, texts: Floats, labels: Labels) -> float | None:
    """Inter-intra modal measure, -1 to 1: half the sum of two mean cosines.

    That of an image with the texts of the other classes, over images and texts, and that of two
    different images. The higher, the more fine-tuning is said to gain, and to lose elsewhere.

    Args:
        images: [N, E] at unit length. texts: [C, E] of the classes at unit length. labels: [N].

    Returns:
        None of fewer than two images or classes.

    Reference: Niss, Vogt-Lowell & Tsiligkaridis 2024, "The Inter-Intra Modal Measure",
    arXiv 2407.15731, section 3.

    >>> eye = np.eye(2)
    >>> round(iimm(np.array([[1.0, 0.0], [0.6, 0.8]]), eye, np.array([0, 1])), 12)
    0.45
    """
    n, n_classes = len(images), len(texts)
    if n < 2 or n_classes < 2:
        return None
    cosines = images @ texts.T
    wrong = (cosines.sum() - cosines[np.arange(n), labels].sum()) / (n * (n_classes - 1))
    total = images.sum(axis=0)
    pairs = (total @ total - np.square(images).sum()) / (n * (n - 1))
    return float(wrong + pairs) / 2


def silhouette(images: Floats, labels: Labels) -> float | None:
    """Mean silhouette of the classes by cosine distance, -1 to 1; 1: each close, and far apart.

    None of one class, or where no class has two images.

    Reference: Rousseeuw 1987, "Silhouettes", as scikit-learn computes it.
    """
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(images, labels, metric="cosine"))


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float | None:
    """Cosine of two gradients of the same weights, each all tensors in one vector, -1 to 1.

    Of a target's loss and a transfer set's: above 0 a first step down the one goes down the other.
    None where one is zero.

    Reference: Fort et al. 2019, "Stiffness", arXiv 1901.09491, eq. 2; its numerator is the tangent
    kernel of the losses (Jacot, Gabriel & Hongler 2018).
    """
    product = sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))
    size = norm(a) * norm(b)
    return product / size if size > 0 else None


def norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm of all tensors in one vector."""
    return float(np.sqrt(sum(float(one.square().sum()) for one in tensors)))


def leading_share(gradient: Sequence[Tensor]) -> float | None:
    """Share of a gradient's energy in the leading singular direction of each matrix, 0 to 1.

    sum_m s_1(G_m)^2 / sum_m |G_m|_F^2 over the matrices: of a single one 1 / its stable rank, see
    `stable_rank`. None where there is no matrix, or all are zero.
    """
    matrices = [one.numpy() for one in gradient if one.ndim == 2]
    whole = sum(float(np.square(one).sum()) for one in matrices)
    leading = sum(float(spectrum(one, leading=1).values[0] ** 2) for one in matrices)
    return leading / whole if whole > 0 else None
