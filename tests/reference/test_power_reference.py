"""Power of paired tests against statsmodels, scipy's noncentral t and a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from run_frames import RATES, made_up_runs, shuffled
from scipy import stats
from statsmodels.stats.power import TTestPower
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import power
from clipdrift.analysis.statistics.influence import Images

OUTCOME = "transfer.cifar100.retention_pct"


def pick(rows: Sequence[Any], scope: str, lr: float | None = None, metric: str = OUTCOME) -> Any:
    wanted = ("pets", metric, scope, lr)
    found = [r for r in rows if (r.target, r.metric, r.scope, r.learning_rate) == wanted]
    assert len(found) == 1
    return found[0]


def differences(frame: Any, rate: float, metric: str = OUTCOME) -> np.ndarray:
    part = frame[(frame["target"] == "pets") & (frame["learning_rate"] == rate)]
    wide = part.pivot(index="seed", columns="method", values=metric)
    return (wide.full_ft - wide.lora).to_numpy()


@pytest.mark.parametrize("df", [1, 2, 4, 9, 50, 400])
@pytest.mark.parametrize("nc", [0.0, 0.7, 2.8, 6.0])
def test_power_is_that_of_the_noncentral_t(df: int, nc: float) -> None:
    if nc == 0:
        assert power.power_of_t(nc, df) == pytest.approx(0.05, rel=1e-9)
        return
    critical = stats.t.isf(0.025, df)
    expected = stats.nct.sf(critical, df, nc) + stats.nct.cdf(-critical, df, nc)
    assert power.power_of_t(nc, df) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_detectable_difference_is_that_of_statsmodels(n: int) -> None:
    theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided")
    # statsmodels solves to about 1e-7.
    assert power.detectable_difference(n, 2.5) / 2.5 == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("effect", [0.3, 0.5, 1.0, 2.0, 3.0])
def test_seeds_needed_is_the_smallest_number_that_suffices(effect: float) -> None:
    n = power.seeds_needed(effect, 1.0)
    assert n is not None
    assert TTestPower().power(effect, n, 0.05) >= 0.8
    if n > 2:
        assert TTestPower().power(effect, n - 1, 0.05) < 0.8


def test_rows_follow_from_the_observed_differences() -> None:
    frame = made_up_runs()
    rows = power.rows(frame)
    of_rate = {rate: differences(frame, rate) for rate in RATES}
    over = np.mean(list(of_rate.values()), axis=0)
    for rate, gaps in (*of_rate.items(), (None, over)):
        row = pick(rows, "grid_mean" if rate is None else "per_lr", rate)
        n_rates = 4 if rate is None else 1
        d = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
        assert (row.n_pairs, row.n_seeds) == (5 * n_rates, 5)
        assert row.sd_diff == pytest.approx(gaps.std(ddof=1), rel=1e-9)
        assert row.detectable_diff == pytest.approx(d * gaps.std(ddof=1), rel=1e-6)


def test_power_over_the_grid_holds_in_a_simulation() -> None:
    """Differences that a seed's rates share: only seeds tell how much the mean varies."""
    rng = np.random.default_rng(0)
    n_seeds, n_studies = 5, 20_000
    sd = (1.0 + 0.25 / 4) ** 0.5
    delta = power.detectable_difference(n_seeds, sd)
    shared = rng.normal(size=(n_studies, n_seeds, 1))
    own = 0.5 * rng.normal(size=(n_studies, n_seeds, 4))
    gaps = delta + np.array([-1.0, 0.0, 0.3, 0.7]) + shared + own
    p = stats.ttest_1samp(gaps.mean(axis=2), 0.0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.01)  # Monte Carlo error 0.003


@pytest.mark.parametrize("n_seeds", [2, 3, 10])
@pytest.mark.parametrize("shared_se", [0.1, 0.6, 2.0])
def test_a_difference_is_found_in_four_of_five_studies_that_draw_images_too(
    n_seeds: int, shared_se: float
) -> None:
    """By the rule of `crossed`: both half-widths, squared and added, against the mean."""
    rng, n_images, n_studies = np.random.default_rng(0), 300, 20_000
    delta = power.detectable_difference(n_seeds, 1.0, shared_se, n_images)
    of_images = shared_se * rng.normal(size=(n_studies, 1))
    gaps = delta + of_images + rng.normal(size=(n_studies, n_seeds))
    seeds = stats.t.isf(0.025, n_seeds - 1) * gaps.std(axis=1, ddof=1) / n_seeds**0.5
    half = np.hypot(seeds, stats.t.isf(0.025, n_images - 1) * shared_se)
    assert 0.79 < (abs(gaps.mean(axis=1)) > half).mean() < 0.83  # Monte Carlo error 0.003


def test_no_number_of_seeds_makes_up_for_few_images() -> None:
    hidden = power.from_images(1.0, 300)
    assert power.seeds_needed(0.99 * hidden, 1.0, 1.0, 300) is None
    assert power.seeds_needed(1.01 * hidden, 1.0, 1.0, 300) is not None
    records = [with_images(record, 90) for record in synthetic_records(targets=("digits",))]
    frame = runs_frame(records)
    both = power.rows(frame, metrics=["test_accuracy"], images=Images(records))
    told = 0
    for row, alone in zip(both, power.rows(frame, metrics=["test_accuracy"]), strict=True):
        if row.shared_se:
            hidden = power.from_images(row.shared_se, 90)
            expected = np.hypot(alone.detectable_diff, hidden)
            assert row.detectable_diff == pytest.approx(expected, rel=1e-12)
            unseen = "no number of seeds makes up for 90 images"
            assert (row.reason == unseen) == (hidden > 0.01)
            told += row.reason == unseen
    assert told > 0


def test_points_are_hundredths_of_a_fraction() -> None:
    frame = made_up_runs()
    row = pick(power.rows(frame), "per_lr", RATES[0], "test_accuracy")
    sd = differences(frame, RATES[0], "test_accuracy").std(ddof=1)
    assert row.seeds_for_1pp == power.seeds_needed(0.01, sd)
    assert row.seeds_for_1pp >= row.seeds_for_2pp >= row.seeds_for_5pp >= 2


def test_a_metric_without_points_has_no_seeds_for_points() -> None:
    row = pick(power.rows(made_up_runs()), "grid_mean", None, "drift.cka_mean")
    assert row.detectable_diff > 0
    assert (row.seeds_for_1pp, row.reason) == (None, None)


@pytest.mark.parametrize(("n", "floor"), [(3, 0.25), (5, 0.0625)])
def test_the_wilcoxon_floor_is_what_scipy_gives_for_one_sided_pairs(n: int, floor: float) -> None:
    row = pick(power.rows(made_up_runs(seeds=tuple(range(n)))), "per_lr", RATES[0])
    assert row.wilcoxon_floor == floor
    assert stats.wilcoxon(np.arange(1.0, n + 1), method="exact").pvalue == floor


def test_one_seed_leaves_no_variance() -> None:
    rows = power.rows(made_up_runs(seeds=(7,)))
    row = pick(rows, "per_lr", RATES[0])
    assert (row.n_pairs, row.sd_diff, row.detectable_diff) == (1, None, None)
    assert row.reason == "one seed: no spread"
    assert pick(rows, "grid_mean").reason == "one seed: no spread"


def test_methods_that_share_no_rate_have_no_pairs() -> None:
    frame = made_up_runs(methods=("full_ft", "lora"))
    frame.loc[frame["method"] == "lora", "learning_rate"] *= 3
    row = pick(power.rows(frame), "grid_mean")
    assert (row.n_pairs, row.wilcoxon_floor, row.reason) == (0, None, "no usable pair")


def test_differences_that_do_not_vary() -> None:
    frame = made_up_runs()
    frame[OUTCOME] = np.where(frame["method"] == "lora", 90.1, 70.3)
    row = pick(power.rows(frame), "grid_mean")
    assert (row.sd_diff, row.detectable_diff) == (0.0, None)
    assert row.reason == "the differences do not vary: no t test"


def test_more_seeds_than_anyone_runs_is_null() -> None:
    assert power.seeds_needed(0.001, 1.0) is None
    frame = made_up_runs()
    frame[OUTCOME] *= 1000
    row = pick(power.rows(frame), "per_lr", RATES[0])
    assert row.seeds_for_1pp is None
    assert row.reason == "more than 10000 seeds needed"


def test_a_missing_run_drops_its_pair() -> None:
    frame = made_up_runs()
    missing = (frame["target"] == "pets") & (frame["seed"] == 7) & (frame["method"] == "lora")
    frame = frame[~(missing & (frame["learning_rate"] == RATES[0]))]
    rows = power.rows(frame)
    assert pick(rows, "per_lr", RATES[0]).n_pairs == 4
    assert pick(rows, "grid_mean").n_pairs == 16


def test_one_method_has_no_pairs_and_row_order_does_not_matter() -> None:
    assert power.rows(made_up_runs(methods=("lora",))) == []
    frame = made_up_runs()
    assert power.rows(shuffled(frame)) == power.rows(frame)
