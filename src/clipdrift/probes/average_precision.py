"""Average precision of classes where an image may be of several."""

from __future__ import annotations

import torch
from torch import Tensor


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """AP_c = sum_n (R_n - R_{n-1}) P_n over the distinct scores of class c, from the highest down.

    P_n, R_n: precision and recall of the images whose score is at least the n-th. Nothing is
    interpolated, and images of equal score stand or fall together. A score that is not finite lies
    below all others.

    Args:
        scores: [N, C], higher for images that a class is seen in.
        truth: bool [N, C].

    Returns:
        float64 [C], 0 to 1; NaN (undefined) of a class that no image is of.

    Reference: scikit-learn, `average_precision_score`; Zhu 2004, "Recall, precision and average
    precision".

    >>> average_precision(torch.tensor([[0.9], [0.8], [0.1]]), torch.tensor([[1], [0], [1]]).bool())
    tensor([0.8333], dtype=torch.float64)
    """
    known = torch.where(scores.isfinite(), scores.double(), -torch.inf)
    return torch.stack([_of_class(s, t) for s, t in zip(known.T, truth.T, strict=True)])


def _of_class(scores: Tensor, truth: Tensor) -> Tensor:
    order = scores.argsort(descending=True)
    ranked, right = scores[order], truth[order].double().cumsum(0)
    last = torch.ones(len(ranked), dtype=torch.bool, device=ranked.device)
    last[:-1] = ranked[1:] != ranked[:-1]
    right = right[last]
    precision = right / (last.nonzero().squeeze(1) + 1)
    gained = torch.diff(right, prepend=right.new_zeros(1))
    return (gained * precision).sum() / right[-1]
