"""Attention rollout: how much of each patch reaches CLS through all blocks, residuals included.

Entropy (bits), ERF@0.95 and Gini of a rollout are those of `probes.attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipdrift.probes.attention import as_float, cls_patch_attention


def rollout_step(rollout: Tensor | None, mean: Tensor) -> Tensor:
    """Carry the rollout through one more block.

    R_l = A~_l R_(l-1) with A~_l = 0.5 mean_h A_l + 0.5 I and R_0 = I. Called block by block, only
    one block's attention has to exist at a time.

    Args:
        rollout: [B, T, T] of the blocks before, or None before the first.
        mean: [B, T, T] attention of this block, mean over heads; rows sum to 1.

    Returns:
        [B, T, T], rows sum to 1: from tokens after the block (rows) to input tokens (columns).

    Reference: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3. Rows
    of A~ sum to 1 already, so nothing is renormalised (some public code does, along columns).

    >>> swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> rollout_step(None, swap).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    mean = as_float(mean)
    if rollout is None:
        rollout = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return 0.5 * (mean + rollout)
    # 0.5 (A R + R) spares the sum of A and I.
    return torch.baddbmm(rollout, mean, rollout, beta=0.5, alpha=0.5)


def rollout_cls(rollout: Tensor) -> Tensor:
    """What CLS holds of each patch after the last block, without CLS itself, renormalised.

    Args:
        rollout: [B, T, T] after all blocks.

    Returns:
        [B, P] with P = T - 1, sums to 1.

    >>> rollout_cls(torch.tensor([[[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]]])).tolist()
    [[0.5, 0.5]]
    """
    return cls_patch_attention(rollout)
