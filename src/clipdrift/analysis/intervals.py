"""Intervals and resampling shared by the analyses: percentile and t intervals, cluster draws."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of an interval; both None where it is undefined."""

    low: float | None
    high: float | None


UNDEFINED = Interval(None, None)
# Equal values vary by rounding: below this share of the values themselves a spread is zero.
ROUNDING = 1e-13


def percentile_ci(samples: ArrayLike, level: float = 0.95, min_defined: float = 0.5) -> Interval:
    """Percentile bootstrap interval: the (1-level)/2 and (1+level)/2 quantiles of the resamples.

    Resamples in which the statistic was undefined (NaN) are left out. Where fewer than
    `min_defined` of them remain the interval would describe a selected part only, so it is
    undefined.

    Args:
        samples: statistic per resample, shape (n_resamples,).
        level: coverage, in (0, 1).
        min_defined: share of the resamples that must be defined.

    Reference: Efron & Tibshirani (1993), section 13.3.

    >>> percentile_ci(range(101), level=0.5)
    Interval(low=25.0, high=75.0)
    >>> percentile_ci([1.0, float("nan"), float("nan")])
    Interval(low=None, high=None)
    """
    whole = np.asarray(samples, dtype=np.float64).reshape(1, -1)
    return percentile_cis(whole, level, min_defined)[0]


def percentile_cis(
    samples: Floats, level: float = 0.95, min_defined: float = 0.5
) -> list[Interval]:
    """`percentile_ci` of many statistics at once: samples (n_statistics, n_resamples)."""
    ends = [(1 - level) / 2, (1 + level) / 2]
    out = [UNDEFINED] * len(samples)
    if samples.shape[1] < 2:
        return out
    finite = np.isfinite(samples)
    counts = finite.sum(axis=1)
    whole = np.flatnonzero(counts == samples.shape[1])
    # Statistics defined throughout, nearly always all of them, need one call and not one each.
    for i, low, high in zip(whole, *np.quantile(samples[whole], ends, axis=1), strict=True):
        out[i] = Interval(float(low), float(high))
    for i in np.flatnonzero(counts < samples.shape[1]):
        if counts[i] >= max(2, min_defined * samples.shape[1]):
            low, high = np.quantile(samples[i, finite[i]], ends)
            out[i] = Interval(float(low), float(high))
    return out


def t_ci(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student interval of a mean: mean -+ t_{(1+level)/2, n-1} SD / sqrt(n), SD with ddof 1.

    Undefined for fewer than two values, and where they do not vary: an SD of zero from a few values
    does not tell that there is no error, and an interval without width has no coverage.

    >>> low, high = t_ci([1.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-10.706, 14.706)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2 or float(x.std(ddof=1)) <= ROUNDING * float(np.abs(x).max()):
        return UNDEFINED
    half = float(stdtrit(x.size - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(x.size))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


class ClusterDraws(NamedTuple):
    """How often each cluster was drawn in each resample, and which cluster a row belongs to.

    `counts[codes]` has shape (n_rows, n_resamples): the multiplicity of each row.
    """

    counts: Floats
    codes: NDArray[np.intp]


def cluster_resamples(
    labels: Sequence[Hashable] | NDArray[Any], n_resamples: int, seed: int
) -> ClusterDraws:
    """Draw whole clusters with replacement, as many as there are.

    Rows of a cluster stay together, because they are not independent replicates. Clusters are
    numbered in sorted order, so the draws do not depend on the order of the rows.

    Args:
        labels: cluster of each row, shape (n_rows,); sortable.
        n_resamples: number of resamples.
        seed: of the generator.

    Returns:
        counts (n_clusters, n_resamples), each column summing to n_clusters; codes (n_rows,).

    Reference: Davison & Hinkley (1997), section 3.8.

    >>> draws = cluster_resamples(["b", "a", "b"], n_resamples=4, seed=0)
    >>> draws.codes.tolist(), draws.counts.sum(axis=0).tolist()
    ([1, 0, 1], [2.0, 2.0, 2.0, 2.0])
    """
    numbers = {label: i for i, label in enumerate(sorted(set(labels)))}
    codes = np.array([numbers[label] for label in labels], dtype=np.intp)
    k = len(numbers)
    if k == 0:
        return ClusterDraws(np.zeros((0, n_resamples)), codes)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(k, np.full(k, 1 / k), size=n_resamples)
    return ClusterDraws(np.ascontiguousarray(counts.T, dtype=np.float64), codes)


class DistinctDraws(NamedTuple):
    """Resamples with the same counts folded into one, and how often each was drawn."""

    counts: Floats
    inverse: NDArray[np.intp]


def distinct_draws(draws: ClusterDraws) -> DistinctDraws:
    """Fold equal resamples: few clusters give few distinct draws (5 seeds: at most 126).

    A statistic computed per distinct draw is spread over all resamples by `stat[inverse]`.

    Returns:
        counts (n_clusters, n_distinct); inverse (n_resamples,).
    """
    counts, inverse = np.unique(draws.counts, axis=1, return_inverse=True)
    return DistinctDraws(np.ascontiguousarray(counts), inverse.ravel())


__all__ = [
    "ROUNDING",
    "UNDEFINED",
    "ClusterDraws",
    "DistinctDraws",
    "Interval",
    "cluster_resamples",
    "distinct_draws",
    "percentile_ci",
    "percentile_cis",
    "t_ci",
]
