"""How image and text embeddings lie: apart, near their own, spread, in how many directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdrift.probes.spectra import entropy_rank

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ROWS = 1024
"""Images whose distances to all others are in memory at once."""
ROUNDING = 1e-14
"""Of a squared distance: of a vector from itself it is 0."""


def unit(vectors: Floats) -> Floats:
    """Rows at length 1; NaN where one is zero.

    >>> unit(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    out: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out


def modality_gap(images: Floats, texts: Floats) -> float:
    """Distance between the centroids of image and text embeddings at unit length, 0 to 2.

    It says nothing of how the two overlap: see `energy_distance`.

    Args:
        images: [N, E] at unit length. texts: [N, E] each image's own text, at unit length.

    Reference: Liang et al. 2022, "Mind the Gap", section 2.

    >>> modality_gap(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == 2**0.5
    True
    """
    return float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0)))


def alignment(images: Floats, texts: Floats) -> float:
    """Mean squared distance of an image from its own text, 0 to 4; smaller is better.

    Reference: Wang & Isola 2020, "Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere", eq. 2 with alpha = 2.

    >>> alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    2.0
    """
    return float(np.square(images - texts).sum(axis=1).mean())


def uniformity(images: Floats) -> float:
    """log of the mean over pairs of different images of exp(-2 |x - y|^2), -8 to 0.

    The smaller, the more evenly they fill the sphere.

    Reference: Wang & Isola 2020, eq. 3 with t = 2.

    >>> round(uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])), 6)
    -8.0
    """
    n, total = len(images), 0.0
    for start in range(0, n, ROWS):
        cosine = images[start : start + ROWS] @ images.T
        total += float(np.exp(-4.0 * (1.0 - cosine)).sum())
    return float(np.log((total - n) / (n * (n - 1))))


def energy_distance(images: Floats, texts: Floats, labels: Labels) -> float:
    """How differently images and texts are distributed: 2 E|x - t| - E|x - x'| - E|t - t'|.

    Each class's text is weighted by its images. 0 only if both lie alike; pairs with themselves
    count, as in the V-statistic, so it is never below 0.

    Args:
        images: [N, E] at unit length. texts: [C, E] at unit length. labels: [N].

    Reference: Szekely & Rizzo 2013, "Energy statistics", eq. 5.

    >>> both = np.eye(2)
    >>> energy_distance(both, both, np.array([0, 1]))
    0.0
    """
    share = np.bincount(labels, minlength=len(texts)) / len(labels)
    across = within = 0.0
    for start in range(0, len(images), ROWS):
        part = images[start : start + ROWS]
        across += float((_distances(part, texts) @ share).sum())
        within += float(_distances(part, images).sum())
    n = len(images)
    of_texts = float(share @ _distances(texts, texts) @ share)
    return max(0.0, 2 * across / n - within / n**2 - of_texts)


def _distances(a: Floats, b: Floats) -> Floats:
    """[N, M] between vectors at unit length."""
    squared = 2.0 - 2.0 * (a @ b.T)
    out: Floats = np.sqrt(np.where(squared > ROUNDING, squared, 0.0))
    return out


def effective_rank(images: Floats) -> float | None:
    """`entropy_rank` of the centred embeddings: in how many directions they lie.

    Returns:
        1 (all in one direction) to min(N - 1, E); None where all are the same.

    >>> round(effective_rank(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
    2.0
    """
    return entropy_rank(np.linalg.svd(images - images.mean(axis=0), compute_uv=False))


def margins(cosines: Floats, labels: Labels) -> Floats:
    """Cosine of each image with the right class's text, less the nearest wrong one's: [N], -2 to 2.

    Args:
        cosines: [N, C]; of one class alone the margin is infinite.

    >>> margins(np.array([[0.3, 0.1], [0.2, 0.3]]), np.array([0, 0])).round(3).tolist()
    [0.2, -0.1]
    """
    rows = np.arange(len(labels))
    wrong = cosines.copy()
    wrong[rows, labels] = -np.inf
    out: Floats = cosines[rows, labels] - wrong.max(axis=1)
    return out
