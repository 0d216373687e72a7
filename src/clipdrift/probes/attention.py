"""How attention is spread: entropy, effective receptive field, Gini, diversity of heads.

`a` is always a distribution over the P patches; half precision is computed as float32, float64
stays float64. Undefined values (no mass on any patch, one head) are NaN here and null in records.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipdrift.machine.devices import for_float64


def cls_patch_attention(attn: Tensor) -> Tensor:
    """Attention from CLS to the patches, without CLS itself.

    a_j = A[0, j] / sum_k A[0, k] over patches j, k.

    Args:
        attn: [..., T, T] rows that sum to 1, token 0 is CLS; [B, H, T, T] in one block.

    Returns:
        [..., P] with P = T - 1, sums to 1. NaN where CLS attends to itself alone.

    >>> cls_patch_attention(torch.tensor([[[[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]]]])).tolist()
    [[[0.5, 0.5]]]
    """
    row = as_float(attn)[..., 0, 1:]
    return row / row.sum(dim=-1, keepdim=True)


def entropy_nats(a: Tensor) -> Tensor:
    """Shannon entropy H(a) = -sum_j a_j ln a_j, with 0 ln 0 = 0.

    Args:
        a: [..., P], sums to 1.

    Returns:
        [...] in nats, 0 (one patch) to ln P (uniform).

    Reference: Clark et al. 2019, "What Does BERT Look At?", section 3.3, for attention heads. There
    the distribution includes the special tokens; here CLS is taken out first.

    >>> round(entropy_nats(torch.full((4,), 0.25, dtype=torch.float64)).item() / math.log(4), 12)
    1.0
    """
    nats: Tensor = torch.special.entr(as_float(a)).sum(dim=-1)
    return nats


def entropy_bits(a: Tensor) -> Tensor:
    """Shannon entropy -sum_j a_j log2 a_j.

    Args:
        a: [..., P], sums to 1.

    Returns:
        [...] in bits, 0 to log2 P.

    >>> entropy_bits(torch.tensor([0.5, 0.25, 0.25])).item()
    1.5
    """
    return entropy_nats(a) / math.log(2)


def erf95(a: Tensor, mass: float = 0.95) -> Tensor:
    """Effective receptive field: the smallest fraction of patches that holds most of the mass.

    min { k / P : sum of the k largest a_j >= mass }.

    Args:
        a: [..., P], sums to 1.
        mass: share of the total to reach, in (0, 1].

    Returns:
        [...] a fraction, 1 / P to 1.

    Raises:
        ValueError: if `mass` is outside (0, 1].

    >>> erf95(torch.tensor([0.9, 0.06, 0.04, 0.0])).item(), erf95(torch.full((20,), 0.05)).item()
    (0.5, 0.949999988079071)
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass: expected a share in (0, 1], got {mass}. Give 0.95 for ERF@0.95.")
    weights = as_float(a)
    ranked = for_float64(weights.sort(dim=-1, descending=True).values)
    reached = ranked.double().cumsum(dim=-1)
    total = reached[..., -1:]
    n_patches = a.shape[-1]
    # A mass that is met exactly (19 of 20 equal patches) must not be missed by rounding: that of
    # the weights themselves, or that of a float64 sum over many patches.
    slack = max(8 * torch.finfo(weights.dtype).eps, n_patches * torch.finfo(torch.float64).eps)
    n_short = (reached < mass * (1 - slack) * total).sum(dim=-1)
    defined = (total.isfinite() & (total > 0)).squeeze(-1)
    fraction = (n_short + 1).to(weights.dtype) / n_patches
    return torch.where(defined, fraction, math.nan).to(a.device)


def gini(a: Tensor) -> Tensor:
    """Gini coefficient of the weights: how unequally the patches are attended to.

    2 sum_i i a_(i) / (P sum_i a_(i)) - (P + 1) / P with a_(i) ascending, computed in the equal form
    sum_i (2i - P - 1) a_(i) / (P sum_i a_(i)), which does not subtract two numbers close to 1.

    Args:
        a: [..., P], not negative.

    Returns:
        [...] 0 (uniform) to 1 - 1 / P (one patch).

    Reference: Hurley & Rickard 2009, "Comparing Measures of Sparsity", table I.

    >>> gini(torch.tensor([0.0, 0.0, 0.0, 1.0])).item()
    0.75
    """
    ranked = as_float(a).sort(dim=-1).values
    n_patches = a.shape[-1]
    rank = torch.arange(1 - n_patches, n_patches, 2, dtype=ranked.dtype, device=ranked.device)
    return (ranked * rank).sum(dim=-1) / (n_patches * ranked.sum(dim=-1))


def head_diversity(a: Tensor) -> Tensor:
    """How much the heads of a block look at different patches, image by image.

    1 - mean over head pairs of cos(a_h, a_h'). With unit vectors u_h this equals
    sum_h ||u_h - mean(u)||^2 / (H - 1): linear in H, never negative, and exact when heads agree.

    Args:
        a: [..., H, P]; [B, H, P] gives one value per image.

    Returns:
        [...] 0 (all heads alike) to 1 (no patch shared). NaN for a single head.

    Reference: arXiv 2604.16410 averages the maps over the batch first, so its value depends on the
    batch size; that variant is `head_diversity_paper`.

    >>> head_diversity(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])).tolist()
    [1.0, 0.0]
    """
    maps = as_float(a)
    unit = maps / torch.linalg.vector_norm(maps, dim=-1, keepdim=True)
    apart = unit - unit.mean(dim=-2, keepdim=True)
    spread: Tensor = apart.square().sum(dim=(-2, -1))
    return spread / (a.shape[-2] - 1)


def head_diversity_paper(a: Tensor) -> Tensor:
    """Head diversity of the maps averaged over the probe set, as in the paper.

    1 - mean over head pairs of cos(mean_b a_bh, mean_b a_bh').

    Args:
        a: [B, H, P] with B the whole probe set, which fixes the batch that the value depends on.

    Returns:
        A scalar, 0 to 1. NaN for a single head.

    Reference: arXiv 2604.16410; there B is whatever batch was at hand.

    >>> head_diversity_paper(torch.tensor([[[1.0, 0], [0, 1.0]], [[0, 1.0], [1.0, 0]]])).item()
    0.0
    """
    return head_diversity(as_float(a).mean(dim=0))


def patch_entropy_bits(attn: Tensor) -> Tensor:
    """Entropy of the patches' attention over patches, mean over rows.

    (1 / P) sum_i H(p_i), p_i = row i of A without the CLS column, renormalised. From unnormalised
    weights w with sum s: H = ln s - (1 / s) sum_j w_j ln w_j, which spares a copy of the map.

    Args:
        attn: [..., T, T] rows that sum to 1, token 0 is CLS; [B, H, T, T] in one block.

    Returns:
        [...] in bits, 0 to log2 P; [B, H] in one block. NaN if a row attends to CLS alone.

    >>> attn = torch.tensor([[0.2, 0.4, 0.4], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    >>> round(patch_entropy_bits(attn).item(), 6)
    0.5
    """
    weights = as_float(attn)
    total = weights[..., 1:].sum(dim=-1)
    # log of a clamped copy and a row-wise dot product: several times as fast as torch's entr.
    logs = weights.clamp_min(torch.finfo(weights.dtype).tiny).log_()
    logs[..., 0] = 0  # no part of the sum
    nats: Tensor = total.log() - torch.linalg.vecdot(weights, logs) / total
    return nats[..., 1:].mean(dim=-1) / math.log(2)


def as_float(x: Tensor) -> Tensor:
    """float32 for half precision and integers, float64 and float32 as they are.

    bfloat16 moves ERF by about 1 % relative, the size of the effects that are measured.

    >>> as_float(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
