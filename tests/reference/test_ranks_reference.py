"""Ranks, correlations and intervals against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clipdrift.analysis.statistics.intervals import delete_one, jackknife, t_ci, t_test
from clipdrift.analysis.statistics.ranks import centred_ranks, spearman, within_seeds


def samples(seed: int, n: int = 23, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 0.5 * x + rng.normal(size=n)
    return (np.round(x), np.round(y, 1)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_scipys(seed: int, ties: bool) -> None:
    x, y = samples(seed, ties=ties)
    ours, theirs = spearman(x, y), stats.spearmanr(x, y)
    assert ours.n == 23
    assert ours.rho == pytest.approx(theirs.statistic, rel=1e-9)


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
    assert (result.rho, result.reason) == (None, reason)


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
def test_correlations_within_seeds_are_scipys(ties: bool) -> None:
    rng = np.random.default_rng(2)
    x, y = np.arange(5.0), rng.normal(size=(5, 6, 3))
    y = y.round() if ties else y
    y[0, 1], y[1:, 2, 0], y[:, 3] = np.nan, np.nan, 7.0
    ours = within_seeds(x, y)
    for seed in range(6):
        for metric in range(3):
            theirs = spearman(x, y[:, seed, metric]).rho
            assert ours[seed, metric] == pytest.approx(
                np.nan if theirs is None else theirs, nan_ok=True, abs=1e-12
            )
    assert np.isnan(ours[2, 0])  # one rate left
    assert np.isnan(ours[3]).all()  # nothing varies


def test_t_interval_is_scipys() -> None:
    x = np.random.default_rng(4).normal(3, 2, size=7)
    theirs = stats.t.interval(0.95, 6, loc=x.mean(), scale=stats.sem(x))
    assert t_ci(x) == pytest.approx(theirs, rel=1e-9)
    assert t_ci([1.0]) == (None, None)


def test_t_test_is_scipys_and_goes_with_its_interval() -> None:
    x = np.random.default_rng(6).normal(0.5, 1, size=5)
    assert t_test(x).p == pytest.approx(stats.ttest_1samp(x, 0).pvalue, rel=1e-9)
    for level in (0.5, 0.9, 0.95):
        low, high = t_test(x).interval(level)
        assert low is not None
        assert high is not None
        assert (low <= 0 <= high) == (t_test(x).p >= 1 - level)


def test_leaving_out_one_at_a_time() -> None:
    """Of the mean it is Student's t; of its logarithm, what the formula says."""
    x = np.random.default_rng(7).normal(3, 2, size=6)
    weights = delete_one(6)
    means = (x @ weights) / weights.sum(axis=0)
    ours, theirs = jackknife(means, 6), t_test(x)
    assert (ours.value, ours.se, ours.df) == pytest.approx((theirs.value, theirs.se, 5), rel=1e-12)
    logs = np.log(means)
    se = np.sqrt(5 / 6 * ((logs[1:] - logs[1:].mean()) ** 2).sum())
    assert jackknife(logs, 6).se == pytest.approx(se, rel=1e-12)


def test_many_seeds_are_left_out_in_groups() -> None:
    x = np.random.default_rng(8).normal(size=950)
    weights = delete_one(950)
    assert weights.shape == (950, 101)
    assert np.array_equal((weights[:, 1:] == 0).sum(axis=1), np.ones(950))
    ours = jackknife((x @ weights) / weights.sum(axis=0), 950)
    # An SE from 99 degrees of freedom has an error of 1 / sqrt(2 * 99), 7 %.
    assert ours.se == pytest.approx(t_test(x).se, rel=0.15)
    assert ours.df == 99


def test_what_has_no_error_says_why() -> None:
    assert jackknife(np.array([1.0, np.nan]), 1).reason == "one seed: no interval"
    alone = "one seed at one of the learning rates: no interval"
    assert jackknife(np.array([1.0, 2.0, 0.0]), 1).reason == alone
    gone = "undefined without one of the seeds: no interval"
    assert jackknife(np.array([1.0, 2.0, np.nan]), 2).reason == gone
    same = jackknife(np.array([0.1 + 0.2, 0.3, 0.3]), 2)
    assert (same.p, same.interval(), same.reason) == (
        None,
        (None, None),
        "the same at every seed: no interval",
    )
