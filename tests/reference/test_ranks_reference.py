"""Weighted ranks and correlations against scipy on the resample written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clipdrift.analysis.intervals import cluster_resamples, distinct_draws, percentile_ci, t_ci
from clipdrift.analysis.ranks import centred_ranks, spearman, weighted_spearman


def samples(seed: int, n: int = 23, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 0.5 * x + rng.normal(size=n)
    return (np.round(x), np.round(y, 1)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spearman_and_p_are_scipys(seed: int, ties: bool) -> None:
    x, y = samples(seed, ties=ties)
    ours, theirs = spearman(x, y), stats.spearmanr(x, y)
    assert ours.n == 23
    assert ours.rho == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_spearman_leaves_out_pairs_that_are_not_finite() -> None:
    x = np.array([1.0, 2.0, np.nan, 3.0, 9.0, np.inf])
    y = np.array([4.0, 1.0, 2.0, 8.0, np.nan, 0.0])
    assert spearman(x, y).n == 3
    assert spearman(x, y).rho == pytest.approx(stats.spearmanr([1, 2, 3], [4, 1, 8]).statistic)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1.0, 2.0], [3.0, 1.0], "2 points, at least 3 needed"),
        ([], [], "0 points, at least 3 needed"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "x does not vary"),
        ([1.0, 2.0, 3.0], [7.0, 7.0, 7.0], "y does not vary"),
    ],
)
def test_undefined_spearman_says_why(x: list[float], y: list[float], reason: str) -> None:
    result = spearman(x, y)
    assert (result.rho, result.p, result.reason) == (None, None, reason)


def test_three_points_in_perfect_order_have_p_zero_like_scipy() -> None:
    assert spearman([1, 2, 3], [1, 5, 9]).p == stats.spearmanr([1, 2, 3], [1, 5, 9]).pvalue == 0


@pytest.mark.parametrize("ties", [False, True])
def test_centred_ranks_are_rankdata_less_its_mean_on_the_written_out_resample(ties: bool) -> None:
    x, _ = samples(1, ties=ties)
    weights = np.random.default_rng(3).integers(0, 4, size=(x.size, 50)).astype(float)
    ours = centred_ranks(x, weights)
    for b in range(50):
        copies = weights[:, b].astype(int)
        expected = stats.rankdata(np.repeat(x, copies))
        assert np.array_equal(np.repeat(ours[:, b], copies), expected - expected.mean())


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_spearman_is_scipys_on_the_written_out_resample(ties: bool) -> None:
    x, y = samples(2, ties=ties)
    draws = cluster_resamples([i % 5 for i in range(x.size)], 200, seed=8)
    weights = draws.counts[draws.codes]
    ours = weighted_spearman(x, y, weights)
    for b in range(200):
        copies = weights[:, b].astype(int)
        theirs = stats.spearmanr(np.repeat(x, copies), np.repeat(y, copies)).statistic
        assert ours[b] == pytest.approx(theirs, abs=1e-12)


def test_a_resample_of_one_distinct_value_is_undefined() -> None:
    weights = np.array([[3.0, 1], [0, 1], [0, 1]])
    rho = weighted_spearman(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]), weights)
    assert np.isnan(rho[0])
    assert rho[1] == 1


def test_cluster_draws_follow_labels_and_not_row_order() -> None:
    labels = ["b", "a", "c", "a", "b"]
    first = cluster_resamples(labels, 30, seed=5)
    order = [4, 2, 0, 1, 3]
    second = cluster_resamples([labels[i] for i in order], 30, seed=5)
    assert np.array_equal(first.counts[first.codes][order], second.counts[second.codes])
    assert not np.array_equal(first.counts, cluster_resamples(labels, 30, seed=6).counts)


def test_cluster_draws_have_the_multinomial_mean_and_variance() -> None:
    counts = cluster_resamples(range(4), 200_000, seed=0).counts
    assert counts.mean(axis=1) == pytest.approx([1.0] * 4, abs=0.01)
    # Monte Carlo error of a variance of 0.75 over 200,000 draws is about 0.003.
    assert counts.var(axis=1) == pytest.approx([0.75] * 4, abs=0.015)


def test_distinct_draws_unfold_to_the_draws() -> None:
    draws = cluster_resamples([7, 11, 19], 1000, seed=2)
    distinct = distinct_draws(draws)
    assert distinct.counts.shape[1] == 10  # multisets of size 3 from 3
    assert np.array_equal(distinct.counts[:, distinct.inverse], draws.counts)


def test_percentile_ci_against_numpy_and_its_refusals() -> None:
    x = np.random.default_rng(0).normal(size=999)
    assert percentile_ci(x) == pytest.approx(tuple(np.percentile(x, [2.5, 97.5])), rel=1e-12)
    x[:400] = np.nan
    assert percentile_ci(x) == pytest.approx(tuple(np.nanpercentile(x, [2.5, 97.5])), rel=1e-12)
    x[:600] = np.nan
    assert percentile_ci(x) == (None, None)
    assert percentile_ci([]) == (None, None)


def test_t_interval_is_scipys() -> None:
    x = np.random.default_rng(4).normal(3, 2, size=7)
    theirs = stats.t.interval(0.9, 6, loc=x.mean(), scale=stats.sem(x))
    assert t_ci(x, 0.9) == pytest.approx(theirs, rel=1e-9)
    assert t_ci([1.0]) == (None, None)
