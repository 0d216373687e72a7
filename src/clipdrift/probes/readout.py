"""What labelled images still find in frozen embeddings: is lost accuracy gone, or misaligned?

Zero-shot accuracy falls where image embeddings lose what tells classes apart, and where they only
move away from the texts. A read-out that is fitted to labels tells the two from each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Fold = NDArray[np.bool_]
RIDGE = 0.1
"""Penalty, as a share of the mean eigenvalue of the covariance of the embeddings."""
NEIGHBOURS, NEAR = 20, 0.07
"""Neighbours that vote, and the temperature of their votes."""


def halves(labels: Labels) -> Fold:
    """Which images are in the first half: every second one of each class, in their order.

    >>> halves(np.array([0, 0, 1, 1, 1])).tolist()
    [True, False, True, False, True]
    """
    first = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        first[np.flatnonzero(labels == label)[::2]] = True
    return first


def crossed(
    fit: Callable[[Floats, Labels, Floats], Labels], images: Floats, labels: Labels
) -> Labels:
    """Classes of each half as they are read off by a fit to the other half, shape [N]."""
    first, out = halves(labels), np.empty(len(labels), dtype=np.int64)
    for half in (first, ~first):
        out[half] = fit(images[~half], labels[~half], images[half])
    return out


def ridge_classes(images: Floats, labels: Labels, unseen: Floats) -> Labels:
    """Classes by the closed-form ridge regression of one-hot labels on centred embeddings.

    W = (X'X + l n I)^-1 X'Y, with l a tenth of the mean eigenvalue of X'X / n; the largest of
    x W + mean(Y) decides.

    Args:
        images: [N, E]. labels: [N]. unseen: [M, E].

    Returns:
        [M] class numbers.

    Reference: Hoerl & Kennard 1970, "Ridge Regression", eq. 2.1; as a probe of features Kornblith
    et al. 2019, "Do Better ImageNet Models Transfer Better?", with logistic loss.
    """
    classes, at = np.unique(labels, return_inverse=True)
    centre, targets = images.mean(axis=0), np.eye(len(classes))[at]
    x, y = images - centre, targets - targets.mean(axis=0)
    covariance = x.T @ x
    covariance[np.diag_indices_from(covariance)] += RIDGE * np.trace(covariance) / len(covariance)
    weights = np.linalg.solve(covariance, x.T @ y)
    scores = (unseen - centre) @ weights + targets.mean(axis=0)
    found: Labels = classes[scores.argmax(axis=1)]
    return found


def neighbour_classes(images: Floats, labels: Labels, unseen: Floats) -> Labels:
    """Classes by the votes of the 20 nearest embeddings, each of weight exp(cosine / 0.07).

    Args:
        images: [N, E] at unit length. labels: [N]. unseen: [M, E] at unit length.

    Returns:
        [M] class numbers.

    Reference: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4; 20 neighbours as Caron et al. 2021 (DINO).
    """
    cosine = unseen @ images.T
    k = min(NEIGHBOURS, len(images))
    near = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    classes, at = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(unseen), len(classes)))
    weight = np.exp((np.take_along_axis(cosine, near, 1) - 1.0) / NEAR)
    np.add.at(votes, (np.arange(len(unseen))[:, None], at[near]), weight)
    found: Labels = classes[votes.argmax(axis=1)]
    return found
