"""Spearman correlation: of plain data, of weighted runs, and within each seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
MIN_POINTS = 3


class Correlation(NamedTuple):
    """A correlation; None where it is undefined, and `reason` says why."""

    n: int
    rho: float | None
    reason: str | None


def spearman(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> Correlation:
    """Spearman's rank correlation over the points where both are finite.

    rho = Pearson correlation of average ranks.

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
        return Correlation(n, None, f"{n} points, at least {MIN_POINTS} needed")
    for name, values in zip(names, (a, b), strict=True):
        if values.min() == values.max():
            return Correlation(n, None, f"{name} does not vary")
    return Correlation(n, pearson(rankdata(a), rankdata(b)), None)


def pearson(x: Floats, y: Floats) -> float:
    """Product-moment correlation of two varying vectors of shape (n,), in [-1, 1]."""
    dx, dy = x - x.mean(), y - y.mean()
    value = float(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)))
    return min(1.0, max(-1.0, value))


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


def within_seeds(x: Floats, y: Floats) -> Floats:
    """Spearman's rho of x and y over the rates of each seed, for many y at a time.

    The centred rank of a point is half the sum of sign(point - other) over the others.

    Args:
        x: shape (n_rates,), finite.
        y: shape (n_rates, n_seeds, n_metrics); NaN where there is no value.

    Returns:
        Shape (n_seeds, n_metrics), in [-1, 1]; NaN for fewer than three values of a seed, or where
        they do not vary.

    >>> y = np.array([1.0, 3.0, 2.0]).reshape(3, 1, 1)
    >>> within_seeds(np.array([1.0, 2.0, 3.0]), y).tolist()
    [[0.5]]
    """
    there = np.isfinite(y)
    filled = np.where(there, y, 0.0)
    rx, ry = np.zeros(y.shape), np.zeros(y.shape)
    for k in range(len(x)):
        both = there & there[k]
        rx += both * (np.sign(x - x[k]) / 2)[:, None, None]
        ry += both * np.sign(filled - filled[k]) / 2
    sxy, sxx, syy = ((a * b).sum(axis=0) for a, b in ((rx, ry), (rx, rx), (ry, ry)))
    rho = correlate_centred(sxy, sxx, syy)
    return np.where(there.sum(axis=0) >= MIN_POINTS, rho, np.nan)


def correlate_centred(sxy: Floats, sxx: Floats, syy: Floats) -> Floats:
    """sxy / sqrt(sxx syy), NaN where either sum of squares is zero.

    Ranks are multiples of a half, so a sum of squares is either exact zero or at least 1/4; what
    lies between is rounding.
    """
    varies = (sxx > 0.1) & (syy > 0.1)
    scale = np.sqrt(np.where(varies, sxx * syy, 1.0))
    return np.where(varies, np.clip(sxy / scale, -1.0, 1.0), np.nan)
