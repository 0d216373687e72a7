"""Cells, dose-response, frontier, operating points and grid against pandas and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from run_frames import RATES, made_up_runs, shuffled
from scipy import stats
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import metric_columns, runs_frame
from clipdrift.analysis.questions import cell_metrics as cells
from clipdrift.analysis.questions import dose, frontier, operating
from clipdrift.analysis.questions import grid_adequacy as grid
from clipdrift.analysis.statistics.crossed import binomial
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import of_share, t_ci

RETENTION = "transfer.cifar100.retention_pct"
CELL = ["target", "method", "learning_rate"]


def test_cells_agree_with_pandas_and_scipy() -> None:
    frame = made_up_runs()
    rows = cells.rows(frame)
    assert len(rows) == 16 * len(metric_columns(frame))
    groups = dict(iter(frame.groupby(CELL)))
    for row in rows:
        own = groups[row.target, row.method, row.learning_rate][row.metric]
        low, high = stats.t.interval(0.95, len(own) - 1, loc=own.mean(), scale=stats.sem(own))
        assert row.n == len(own) == 5
        assert row.mean == pytest.approx(own.mean(), rel=1e-12)
        assert row.sd == pytest.approx(own.std(ddof=1), rel=1e-9)
        if row.metric.endswith("accuracy"):
            low, high = on_log_odds(low, high)
        assert (row.ci_low, row.ci_high) == pytest.approx((low, high), rel=1e-8)


def test_one_seed_has_no_spread() -> None:
    row = cells.rows(made_up_runs(seeds=(7,)))[0]
    assert (row.n, row.sd, row.ci_low, row.ci_high) == (1, None, None, None)
    assert row.mean is not None
    assert row.reason == "one value: no SD and no interval"


def test_undefined_values_are_left_out_and_said() -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",), rates=(1e-5,))
    frame.loc[frame.index[:2], RETENTION] = [np.nan, np.inf]
    frame["drift.never"] = np.nan
    rows = {row.metric: row for row in cells.rows(frame)}
    kept = frame[RETENTION].to_numpy()[2:]
    assert rows[RETENTION].mean == pytest.approx(kept.mean(), rel=1e-12)
    assert rows[RETENTION].n == len(rows[RETENTION].run_ids) == 3
    assert rows[RETENTION].reason == "undefined in 2 of 5 runs"
    assert (rows["drift.never"].n, rows["drift.never"].mean) == (0, None)
    assert rows["drift.never"].reason == "undefined in all 5 runs"


def test_equal_values_have_an_sd_of_exactly_zero() -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",), rates=(1e-5,), seeds=(1, 2, 3))
    frame["test_accuracy"] = 0.1  # three times 0.1 over 3 is not 0.1 in floating point
    row = next(r for r in cells.rows(frame) if r.metric == "test_accuracy")
    assert (row.mean, row.sd) == (0.1, 0.0)
    assert (row.ci_low, row.ci_high) == (None, None)
    assert row.reason == "the values do not vary: no interval"


def test_values_equal_but_for_rounding_have_no_interval() -> None:
    x = np.array([0.1 + 0.2, 0.3])
    assert x[0] != x[1]
    found = cells.summarise(x[:, None])
    assert (float(found.sd[0]), np.isnan(found.ci_low[0])) == (0.0, True)
    assert t_ci(x) == (None, None)


def on_log_odds(low: float, high: float) -> tuple[float, float]:
    """The interval of a share by its odds, the slope of the log odds read off numerically."""

    def log_odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    mean, half = (low + high) / 2, (high - low) / 2
    slope = (log_odds(mean + 1e-6) - log_odds(mean - 1e-6)) / 2e-6
    odds = [np.exp(log_odds(mean) + sign * slope * half) for sign in (-1, 1)]
    return odds[0] / (1 + odds[0]), odds[1] / (1 + odds[1])


@pytest.mark.slow
def test_accuracies_that_lean_to_the_low_side_are_covered() -> None:
    """Seeds of a mean accuracy of 90 % and an SD of 6 points, normal in the probit."""
    spread = 0.345
    middle = stats.norm.ppf(0.9) * (1 + spread**2) ** 0.5
    seeds = stats.norm.cdf(middle + spread * np.random.default_rng(0).normal(size=(2000, 5)))
    assert seeds.std() == pytest.approx(0.06, abs=0.002)
    held, plain = [], []
    for own in seeds:
        low, high = stats.t.interval(0.95, 4, own.mean(), stats.sem(own))
        plain.append(low <= 0.9 <= high)
        low, high = of_share(t_ci(own), float(own.mean()))
        held.append(low <= 0.9 <= high)
    assert np.mean(plain) < 0.925
    assert np.mean(held) > 0.935


def test_intervals_of_accuracy_and_retention_draw_images_too() -> None:
    records = [with_images(record, 300) for record in synthetic_records(rates=(1e-5, 1e-4))]
    images, runs = Images(records), runs_frame(records)
    rows = cells.rows(runs, images=images)
    for row in rows:
        influence = images.influence(row.run_ids, row.metric)
        no_images = ("drift.", "levels.", "epoch1.", "suite.worst")
        assert (influence is None) == row.metric.startswith(no_images)
        if influence is None:
            assert (row.n_images, row.interval_over) == (None, "seeds")
            continue
        found = influence.crossed()
        assert found.mean == pytest.approx(row.mean, rel=1e-9)
        n = 600 if row.metric.startswith("suite.") else 300  # of two sets
        assert (row.n_images, row.image_se) == (n, found.image_se)
        ends = on_log_odds(*found.ci) if row.metric.endswith("accuracy") else found.ci
        assert (row.ci_low, row.ci_high) == pytest.approx(tuple(ends), rel=1e-8)
        assert row.interval_over == "seeds and images"
    by_cell = {(r.target, r.method, r.learning_rate, r.metric): r for r in rows}
    for row in operating.rows(runs, images=images):
        same = by_cell[row.target, row.method, row.learning_rate, row.metric]
        assert vars(row) == {**vars(same), "val_accuracy": row.val_accuracy}


def test_counts_alone_give_accuracies_their_error_and_retention_a_reason() -> None:
    runs = runs_frame(records := synthetic_records(rates=(1e-5,)))
    rows = cells.rows(runs, images=Images(records))
    for row in rows:
        if row.metric == "transfer.cifar10.accuracy":
            own = runs.set_index("run_id").loc[row.run_ids, row.metric].to_numpy()
            assert (row.n_images, row.image_se) == (1000, binomial(own, 1000).image_se)
            assert row.interval_over == "seeds and images"
        if row.metric == "transfer.cifar10.retention_pct":
            assert (row.n_images, row.image_se) == (1000, None)
            assert row.interval_over == "seeds"
            assert row.reason == "single images are not recorded: no error from images"


def fit_by_rate(frame: pd.DataFrame) -> dict[float, str]:
    return {row.learning_rate: row.fit for row in cells.rows(frame)}


def test_fit_stands_on_validation_where_no_test_was_read() -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",), rates=(1e-6, 1e-5))
    frame["test_accuracy"] = np.nan
    frame["val_accuracy"] = np.where(frame["learning_rate"] == 1e-6, 0.5, 0.9)
    assert fit_by_rate(frame) == {1e-6: "underfits", 1e-5: "fits"}
    assert set(fit_by_rate(frame.assign(val_accuracy=np.nan)).values()) == {None}


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        # The line is .9 of .9, .81; damage is a fall by more than the .09 between line and best.
        ((0.30, 0.70, 0.90, 0.88), ("underfits", "underfits", "fits", "fits")),
        ((0.70, 0.90, 0.80, 0.20), ("underfits", "fits", "damaged", "damaged")),
        ((0.90, 0.40, 0.20, 0.85), ("fits", "damaged", "damaged", "fits")),
        ((0.06, 0.05, 0.50, 0.90), ("underfits", "underfits", "underfits", "fits")),
        ((0.10, 0.60, 0.30, 0.90), ("underfits", "underfits", "damaged", "fits")),
        ((0.81, 0.90, 0.80, 0.90), ("fits", "fits", "damaged", "fits")),
    ],
)
def test_below_the_line_a_cell_past_its_peak_is_damaged(
    accuracies: tuple[float, ...], words: tuple[str, ...]
) -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",))
    rates = sorted(set(frame["learning_rate"]))
    by_rate = dict(zip(rates, accuracies, strict=True))
    frame["test_accuracy"] = frame["learning_rate"].map(by_rate)
    assert fit_by_rate(shuffled(frame)) == dict(zip(rates, words, strict=True))


def test_the_peak_of_another_method_is_no_damage_and_that_of_an_earlier_epoch_is() -> None:
    frame = made_up_runs(targets=("eurosat",), rates=(1e-6, 1e-5))
    lora, low = frame["method"] == "lora", frame["learning_rate"] == 1e-6
    frame["val_accuracy"] = frame["test_accuracy"] = np.where(lora, 0.3, 0.9)
    frame["peak_val_accuracy"] = np.where(lora & low, 0.85, frame["val_accuracy"])
    flags = {(r.method, r.learning_rate): r.fit for r in cells.rows(frame)}
    expected = {("full_ft", 1e-6): "fits", ("full_ft", 1e-5): "fits"}
    assert flags == expected | {("lora", 1e-6): "damaged", ("lora", 1e-5): "underfits"}
    (row,) = (r for r in grid.rows(frame) if r.method == "lora")
    found = (row.underfit_learning_rates, row.damaged_learning_rates, row.n_underfit, row.n_damaged)
    assert found == ([1e-5], [1e-6], 1, 1)
    assert "damaged at 1e-6: past its peak" in row.words
    assert "underfits at 1e-5: it keeps" in row.words


def test_dose_response_is_scipys_within_seeds_and_its_t_test_over_them() -> None:
    frame = made_up_runs()
    rows = dose.rows(frame)
    assert len(rows) == 4 * len(metric_columns(frame))
    for row in rows:
        own = frame[(frame["target"] == row.target) & (frame["method"] == row.method)]
        rhos = [
            stats.spearmanr(np.log10(part["learning_rate"]), part[row.metric]).statistic
            for _, part in own.groupby("seed")
        ]
        assert row.spearman_rho == pytest.approx(np.mean(rhos), rel=1e-9, abs=1e-12)
        assert (row.n, row.n_learning_rates, row.n_seeds) == (20, 4, 5)
        if np.ptp(rhos) < 1e-9:
            assert (row.p, row.ci_low) == (None, None)
            assert row.reason == "the same at every seed: no interval"
            continue
        test = stats.ttest_1samp(rhos, 0)
        low, high = test.confidence_interval()
        assert row.p == pytest.approx(test.pvalue, rel=1e-9)
        assert row.ci_low == pytest.approx(max(low, -1), rel=1e-9)
        assert row.ci_high == pytest.approx(min(high, 1), rel=1e-9)


def test_dose_response_never_says_no_by_p_and_yes_by_interval() -> None:
    """A bootstrap over seeds gave rho .475, p .12 and an interval of .39 to .48."""
    for row in dose.rows(made_up_runs(n_extra=40, targets=("pets",), seeds=(1, 2, 3))):
        if row.p is not None:
            assert (row.p < 0.05) == (not row.ci_low <= 0 <= row.ci_high)


def test_dose_response_of_one_rate_and_of_one_seed() -> None:
    one_rate = dose.rows(made_up_runs(rates=(1e-5,)))
    few = "1 learning rates in a seed, at least 3 needed"
    assert {(r.spearman_rho, r.reason) for r in one_rate} == {(None, few)}
    one_seed = dose.rows(made_up_runs(seeds=(7,)))
    assert all(r.spearman_rho is not None and r.ci_low is None for r in one_seed)
    assert {r.reason for r in one_seed} == {"one seed: no interval"}


def test_dose_response_of_a_constant_metric() -> None:
    frame = made_up_runs(targets=("eurosat",)).assign(**{"drift.extra_0": 1.0})
    rows = [r for r in dose.rows(frame) if r.metric == "drift.extra_0"]
    assert {(r.spearman_rho, r.p, r.reason) for r in rows} == {
        (None, None, "metric does not vary within a seed")
    }


def test_frontier_holds_every_cell_that_nothing_beats() -> None:
    frame = made_up_runs(rng_seed=4)
    means = frame.groupby(CELL)[["test_accuracy", RETENTION]].mean()
    expected = set()
    for target, part in means.groupby("target"):
        points = list(part.itertuples())
        for point in points:
            beaten = any(
                other[1] >= point[1]
                and other[2] >= point[2]
                and (other[1] > point[1] or other[2] > point[2])
                for other in points
            )
            if not beaten:
                expected.add((target, point[0][1], point[0][2]))
    rows = [row for row in frontier.rows(frame) if row.transfer == "cifar100"]
    assert {(row.target, row.method, row.learning_rate) for row in rows} == expected
    assert all(row.n_cells == 8 for row in rows)


def test_operating_point_is_the_cell_with_the_best_validation_mean() -> None:
    frame = made_up_runs(rng_seed=2)
    means = frame.groupby(CELL)[["val_accuracy", RETENTION]].mean()
    for row in operating.rows(frame):
        own = means.loc[row.target, row.method]
        assert row.learning_rate == own["val_accuracy"].idxmax()
        assert row.val_accuracy == pytest.approx(own["val_accuracy"].max(), rel=1e-12)
        if row.metric == RETENTION:
            assert row.mean == pytest.approx(own.loc[row.learning_rate, RETENTION], rel=1e-12)


def test_equal_validation_means_take_the_lower_rate() -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",)).assign(val_accuracy=0.9)
    assert {row.learning_rate for row in operating.rows(frame)} == {min(RATES)}


@pytest.mark.parametrize(
    ("best", "edge"), [(1e-6, "lowest"), (1e-5, None), (5e-6, None), (5e-5, "highest")]
)
def test_grid_says_whether_the_best_rate_is_at_its_edge(best: float, edge: str | None) -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",))
    frame["val_accuracy"] = np.where(frame["learning_rate"] == best, 0.95, 0.9)
    frame["test_accuracy"] = 0.9
    (row,) = grid.rows(frame)
    assert (row.best_learning_rate, row.edge) == (best, edge)
    assert (row.lowest_learning_rate, row.highest_learning_rate) == (1e-6, 5e-5)
    assert row.n_learning_rates == 4
    assert row.words == (f"the best rate is the {edge}: extend the grid" if edge else None)


def test_grid_of_one_rate_and_without_validation() -> None:
    frame = made_up_runs(targets=("eurosat",), methods=("lora",), rates=(1e-5,))
    (row,) = grid.rows(frame)
    assert row.edge is None
    assert row.reason == "one learning rate: a grid of one has no inside"
    frame["val_accuracy"] = np.nan
    (row,) = grid.rows(frame)
    assert (row.best_learning_rate, row.reason) == (None, "no validation accuracy in these records")
    assert operating.rows(frame) == []


def test_order_of_rows_changes_nothing_and_backbones_stay_apart() -> None:
    one, other = made_up_runs(backbone="b32"), made_up_runs(backbone="b16", rng_seed=9)
    both = pd.concat([one, other], ignore_index=True)
    for answer in (cells.rows, dose.rows, frontier.rows, operating.rows, grid.rows):
        rows = answer(both)
        assert answer(shuffled(both)) == rows
        assert [row for row in rows if row.backbone == "b32"] == answer(one)
