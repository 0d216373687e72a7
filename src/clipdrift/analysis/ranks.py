"""Spearman correlation, once on plain data and for many resamples at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr
from scipy.stats import rankdata

Floats = NDArray[np.float64]
MIN_POINTS = 3


class Correlation(NamedTuple):
    """A correlation with its p value; where it is undefined both are None and `reason` says why."""

    n: int
    rho: float | None
    p: float | None
    reason: str | None


def spearman(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> Correlation:
    """Spearman's rank correlation over the points where both are finite.

    rho = Pearson correlation of average ranks; p two-sided from t = rho sqrt((n-2)/(1-rho^2)) on
    n - 2 degrees of freedom. The p value takes points as independent, which seeds of one cell are
    not; clustered intervals come from the bootstrap.

    Args:
        x, y: shape (n,); NaN and infinities are left out pairwise.
        names: what x and y are, for the reason.

    >>> spearman([1, 2, 3, 4], [10, 20, 40, 30]).rho
    0.8
    >>> spearman([1, 1, 1], [1, 2, 3]).reason
    'x does not vary'
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    n = int(a.size)
    if n < MIN_POINTS:
        return Correlation(n, None, None, f"{n} points, at least {MIN_POINTS} needed")
    for name, values in zip(names, (a, b), strict=True):
        if values.min() == values.max():
            return Correlation(n, None, None, f"{name} does not vary")
    rho = pearson(rankdata(a), rankdata(b))
    return Correlation(n, rho, correlation_p(rho, n - 2), None)


def pearson(x: Floats, y: Floats) -> float:
    """Product-moment correlation of two varying vectors of shape (n,), in [-1, 1]."""
    dx, dy = x - x.mean(), y - y.mean()
    value = float(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)))
    return min(1.0, max(-1.0, value))


def correlation_p(rho: float, df: int) -> float | None:
    """Two-sided p of a correlation with `df` residual degrees of freedom; None for df < 1.

    >>> round(correlation_p(0.8, 2), 6)
    0.2
    """
    if df < 1:
        return None
    if abs(rho) >= 1:
        return 0.0
    return float(2 * stdtr(df, -abs(rho) * np.sqrt(df / (1 - rho**2))))


def centred_ranks(values: Floats, weights: Floats) -> Floats:
    """Average ranks less their mean when point i stands `weights[i]` times, per resample.

    rank_i - (N+1)/2 = sum_{x_j < x_i} w_j + sum_{x_j = x_i} w_j / 2 - N/2 with N = sum_j w_j: what
    the copies of point i would get from `scipy.stats.rankdata` on the written-out resample, less
    the mean rank.

    Args:
        values: shape (n,), finite.
        weights: multiplicities, shape (n, n_resamples).

    Returns:
        Shape (n, n_resamples), within -(N-1)/2 and (N-1)/2 where the weight is not 0.

    >>> centred_ranks(np.array([5.0, 3.0]), np.array([[1.0], [2.0]])).ravel().tolist()
    [1.0, -0.5]
    """
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0]).tolist()
    ranks = weights / 2
    below = -ranks.sum(axis=0)
    # One pass over the sorted points on whole rows of resamples: several times faster than
    # np.cumsum along the same axis, and it never holds more than the result.
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        if stop - start == 1:
            point = order[start]
            ranks[point] += below
            below += weights[point]
        else:
            tied = order[start:stop]
            weight = weights[tied].sum(axis=0)
            ranks[tied] = below + weight / 2
            below += weight
    return ranks


def sum_of_squares(ranks: Floats, weights: Floats) -> Floats:
    """sum_i w_i r_i^2 per resample, both of shape (n, n_resamples)."""
    return np.asarray(np.einsum("ib,ib,ib->b", weights, ranks, ranks))


def weighted_spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman correlation of every resample given by multiplicities.

    Args:
        x, y: shape (n,), finite.
        weights: multiplicities, shape (n, n_resamples).

    Returns:
        Shape (n_resamples,), in [-1, 1]; NaN where a resample holds one distinct x or y only.

    >>> weighted_spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2]), np.ones((3, 1))).tolist()
    [0.5]
    """
    rx, ry = centred_ranks(x, weights), centred_ranks(y, weights)
    sxy = np.einsum("ib,ib,ib->b", weights, rx, ry)
    return correlate_centred(sxy, sum_of_squares(rx, weights), sum_of_squares(ry, weights))


def correlate_centred(sxy: Floats, sxx: Floats, syy: Floats) -> Floats:
    """sxy / sqrt(sxx syy), NaN where either sum of squares is zero.

    Ranks are multiples of a half, so a sum of squares is either exact zero or at least 1/4; what
    lies between is rounding.
    """
    varies = (sxx > 0.1) & (syy > 0.1)
    scale = np.sqrt(np.where(varies, sxx * syy, 1.0))
    return np.where(varies, np.clip(sxy / scale, -1.0, 1.0), np.nan)


__all__ = [
    "MIN_POINTS",
    "Correlation",
    "centred_ranks",
    "correlate_centred",
    "correlation_p",
    "pearson",
    "spearman",
    "sum_of_squares",
    "weighted_spearman",
]
