"""Zero-shot classification and how much of it is retained."""

from __future__ import annotations

import torch
from torch import Tensor

from clipdrift.probes.attention import as_float

NO_CLASS = -1


def cosines(image_features: Tensor, text_features: Tensor) -> Tensor:
    """cos(x_n, t_c) in float32 or wider.

    Args:
        image_features: [N, E] need not be normalised.
        text_features: [C, E] likewise.

    Returns:
        [N, C], -1 to 1; NaN where an embedding is zero or not finite.

    >>> cosines(torch.tensor([[3.0, 4.0]]), torch.eye(2)).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    image, text = as_float(image_features), as_float(text_features)
    image, text = (v / torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (image, text))
    product: Tensor = image @ text.T
    return product


def largest(scores: Tensor) -> Tensor:
    """The class of the largest score: zero-shot, the one whose text has the largest cosine.

    Args:
        scores: [N, C].

    Returns:
        [N] int64; -1 (never right) where a score is not finite: an embedding that is zero or not
        finite must not count as class 0.

    Reference: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", section 3.1.2.

    >>> largest(torch.tensor([[0.2, 0.7], [0.1, float("nan")]])).tolist()
    [1, -1]
    """
    return torch.where(scores.isfinite().all(dim=-1), scores.argmax(dim=-1), NO_CLASS)


def retention_pct(adapted: float, baseline: float) -> float | None:
    """Zero-shot accuracy that survives: 100 adapted / baseline.

    Args:
        adapted: accuracy after fine-tuning, a fraction.
        baseline: accuracy of the untouched backbone, a fraction.

    Returns:
        Percent, 0 or more, above 100 where transfer improved. None (undefined) at baseline 0.

    >>> retention_pct(0.3, 0.6), retention_pct(0.1, 0.0)
    (50.0, None)
    """
    return 100 * adapted / baseline if baseline > 0 else None


def chance_corrected_retention_pct(adapted: float, baseline: float, n_classes: int) -> float | None:
    """Retention of what is above guessing: 100 (adapted - 1/C) / (baseline - 1/C).

    Args:
        adapted: accuracy after fine-tuning, a fraction.
        baseline: accuracy of the untouched backbone, a fraction.
        n_classes: C, classes of the transfer dataset, balanced.

    Returns:
        Percent; 0 at chance, negative below it. None (undefined) if the baseline itself is not
        above chance.

    >>> chance_corrected_retention_pct(0.5, 0.75, 4), chance_corrected_retention_pct(0.5, 0.25, 4)
    (50.0, None)
    """
    return corrected_retention_pct(adapted, baseline, 1 / n_classes)


def corrected_retention_pct(adapted: float, baseline: float, chance: float) -> float | None:
    """100 (adapted - chance) / (baseline - chance); None if the baseline is not above chance."""
    return 100 * (adapted - chance) / (baseline - chance) if baseline > chance else None
