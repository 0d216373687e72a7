"""Wilcoxon's signed-rank test, exact with ties."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from clipdrift.analysis.statistics.columns import Floats

MAX_EXACT = 50
"""Beyond it counts of sign patterns leave float64's exact integers, and the normal is close."""


def signed_rank(d: Floats, rounding: float = 0.0) -> float | None:
    """Two-sided signed-rank test of differences symmetric about zero.

    Zeros are left out (Wilcoxon's way). W = sum of average ranks of |d| over d > 0. Up to 50
    differences p = min(1, 2 min(P(W <= w), P(W >= w))) over all sign patterns given the ranks, so
    it is exact with ties too; beyond, the normal approximation with tie correction.

    Args:
        d: differences, shape (n,).
        rounding: differences at most this large are zero, and |d| this close are tied.

    Returns:
        p in (0, 1]; None if no difference is left.

    Reference: Wilcoxon (1945); Hollander, Wolfe & Chicken (2014), section 3.1.

    >>> signed_rank(np.array([0.3, 0.1, 0.2]))
    0.25
    """
    d = d[np.abs(d) > rounding]
    if not d.size:
        return None
    sizes = np.abs(d)
    if rounding:
        ordered = np.sort(sizes)
        starts = np.r_[True, np.diff(ordered) > rounding]
        sizes = np.cumsum(starts)[np.searchsorted(ordered, sizes)].astype(np.float64)
    ranks = np.rint(2 * rankdata(sizes)).astype(np.intp)
    plus = int(ranks[d > 0].sum())
    if d.size > MAX_EXACT:
        return _normal_p(ranks / 2, plus / 2)
    counts = _patterns(tuple(sorted(ranks.tolist())))
    below, above = counts[: plus + 1].sum(), counts[plus:].sum()
    return min(1.0, float(2 * min(below, above) / counts.sum()))


@lru_cache(maxsize=4096)
def _patterns(doubled_ranks: tuple[int, ...]) -> Floats:
    """How many sign patterns give each value of 2 W, shape (2 W_max + 1,)."""
    counts = np.zeros(sum(doubled_ranks) + 1)
    counts[0] = 1
    for rank in doubled_ranks:
        counts[rank:] += counts[:-rank].copy()
    return counts


def _normal_p(ranks: Floats, plus: float) -> float:
    # sum of squared average ranks / 4 is the variance with the tie correction already in it.
    z = (plus - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4)
    return min(1.0, float(2 * ndtr(-abs(z))))
