"""Penalties on what the CLS token attends to, block by block and head by head.

Blocks that the live encoder did not run, as nothing in them or before them trains, attend as the
untouched ones do: they add zero, and count in the mean over blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Rows = Mapping[int, Tensor]
"""Block -> [B, H, T] log of the CLS row; token 0 is CLS, all others are patches."""


def attention_divergence(live: Rows, untouched: Rows) -> Tensor:
    """Kullback-Leibler divergence of the live CLS rows from the untouched ones.

    mean over images, heads and blocks of KL(A^0 || A) = sum_t A^0_t (ln A^0_t - ln A_t) over all
    tokens t, CLS itself included.

    Args:
        live: with its gradient, the blocks that were run.
        untouched: every block, of the same pixels.

    Returns:
        A scalar in nats, 0 or more.

    Reference: Zagoruyko & Komodakis 2017, "Paying more attention to attention", for holding a
    student to a teacher's attention; there by squared distances of maps of convolutional networks.

    >>> rows = {0: torch.tensor([[[0.5, 0.5]]]).log()}, {0: torch.tensor([[[0.25, 0.75]]]).log()}
    >>> round(attention_divergence(rows[1], rows[0]).item(), 6)  # 0.5 ln 2 + 0.5 ln (2 / 3)
    0.143841
    """
    return _mean(live, untouched, lambda now, was: (was.exp() * (was - now)).sum(dim=-1))


def entropy_shortfall(live: Rows, untouched: Rows) -> Tensor:
    """How far the entropy of CLS attention over patches lies below the untouched one.

    mean over images, heads and blocks of max(0, H(a^0) - H(a)), with a the CLS row over the
    patches, renormalised without CLS itself, as `cls_entropy_nats` is measured.

    Args:
        live: with its gradient, the blocks that were run.
        untouched: every block, of the same pixels.

    Returns:
        A scalar in nats, 0 to ln P.

    >>> even = {0: torch.tensor([[[0.5, 0.25, 0.25]]]).log()}
    >>> one = {0: torch.tensor([[[0.2, 0.7, 0.1]]]).log()}
    >>> round(entropy_shortfall(one, even).item(), 6)  # ln 2 - H(7/8, 1/8)
    0.316377
    >>> entropy_shortfall(even, one).item()
    0.0
    """
    return _mean(live, untouched, lambda now, was: (_entropy(was) - _entropy(now)).relu())


def _entropy(row: Tensor) -> Tensor:
    log_a = row[..., 1:].log_softmax(dim=-1)
    return -(log_a.exp() * log_a).sum(dim=-1)


def _mean(live: Rows, untouched: Rows, differ: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over blocks of the mean over images and heads of `differ(live, untouched)` [B, H]."""
    blocks = [differ(row, untouched[block]).mean() for block, row in live.items()]
    return torch.stack(blocks).sum() / len(untouched)
