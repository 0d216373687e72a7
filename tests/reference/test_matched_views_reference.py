"""Curves against scipy's PCHIP and isotonic regression, the views against hand and naive work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_frames import SEEDS, made_up_runs, shuffled, t_by_leaving_out, without_each_seed
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import matched_views
from clipdrift.analysis.statistics.curves import Curve, knot_blocks, sensitivity
from clipdrift.analysis.statistics.influence import Images

OUTCOME = "transfer.cifar100.retention_pct"
SHAPES = "transfer.shapes100.retention_pct"


def pick(rows: Sequence[Any], view: str, metric: str = OUTCOME, **more: Any) -> list[Any]:
    wanted = {"view": view, "metric": metric, "target": "pets", **more}
    return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("rng_seed", range(20))
def test_knots_are_isotonic_regression_up_to_the_peak(rng_seed: int) -> None:
    x = np.random.default_rng(rng_seed).normal(size=9).round(1)
    blocks = knot_blocks(x)
    rising = x[: int(np.argmax(x)) + 1]
    theirs = np.unique(isotonic_regression(rising).x.round(12))
    ours = [x[list(block)].mean() for block in blocks]
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert [i for block in blocks for i in block] == list(range(len(rising)))


def test_curve_ends_and_undefined_values() -> None:
    x = np.array([[0.1, 0.1], [0.3, np.nan], [0.2, np.nan]])
    y = np.array([[[1.0, 1], [2, 2]], [[3, 3], [np.nan, 4]], [[9, 9], [9, 9]]])
    curve = Curve(x, y)
    assert curve.span(0) == (0.1, 0.3)
    assert curve.span(1) is None
    assert np.isnan(curve.at(0.05)).all()
    inside = curve.at(0.2)
    assert inside[0, 0] == pytest.approx(2.0)  # halfway from 1 to 3; beyond the peak nothing counts
    assert np.isnan(inside[1, 0])  # undefined at a knot
    assert np.isnan(inside[:, 1]).all()  # one knot


def two_lines(seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Accuracy and retention linear in log10 LR, no noise: at equal accuracy b keeps 4 more."""
    frame = made_up_runs(targets=("pets",), methods=("a", "b"), seeds=seeds)
    step = np.log10(frame["learning_rate"]) + 6
    is_b = (frame["method"] == "b").to_numpy(dtype=float)
    frame["val_accuracy"] = 0.6 + 0.1 * step - 0.05 * is_b
    frame[OUTCOME] = 100 - 200 * (frame["val_accuracy"] - 0.6) + 4 * is_b
    frame["drift.weight_drift_rel"] = 10 ** (step - 4 - 0.5 * is_b)
    return frame


def test_equal_accuracy_on_straight_lines() -> None:
    rows = matched_views.rows(two_lines())
    found = pick(rows, "equal_val_accuracy")
    top = 0.6 + 0.1 * np.log10(50)
    low, high = 0.6, top - 0.05
    places = low + np.array([0.1, 0.3, 0.5, 0.7, 0.9]) * (high - low)
    assert [row.at for row in found] == pytest.approx(places, rel=1e-12)
    for row in found:
        assert row.value_a == pytest.approx(100 - 200 * (row.at - 0.6), rel=1e-9)
        assert row.diff == pytest.approx(-4, rel=1e-9)
        # Seeds without any spread tell nothing of how sure it is.
        assert (row.ci_low, row.reason) == (None, "the same at every seed: no interval")
    for row in pick(rows, "equal_val_accuracy", "log10_learning_rate"):
        assert row.diff == pytest.approx(-0.5, rel=1e-9)
        assert row.value_a == pytest.approx(-6 + (row.at - 0.6) / 0.1, rel=1e-9)


def test_equal_weight_movement_is_followed_in_log10() -> None:
    found = pick(matched_views.rows(two_lines()), "equal_weight_drift")
    low, high = -4.0, np.log10(50) - 4.5
    ats = [row.at for row in found]
    places = low + np.array([0.1, 0.3, 0.5, 0.7, 0.9]) * (high - low)
    assert np.log10(ats) == pytest.approx(places, rel=1e-9)
    # At equal movement b stands half a decade of LR higher: 0.05 - 0.05 in accuracy, so equal.
    for row in found:
        assert row.diff == pytest.approx(-4, rel=1e-9)


def naive_diff(frame: pd.DataFrame, held: str, place: float) -> float:
    """Cell means, rising knots by scipy's isotonic regression, scipy's PCHIP."""
    values = []
    for method in ("full_ft", "lora"):
        part = frame[frame["method"] == method]
        means = part.groupby("learning_rate")[[held, OUTCOME]].mean()
        means = means.iloc[: int(means[held].to_numpy().argmax()) + 1]
        pooled = isotonic_regression(means[held].to_numpy()).x.round(13)
        knots = means.groupby(pooled).mean()
        if len(knots) < 2:
            return float("nan")
        curve = PchipInterpolator(knots[held], knots[OUTCOME], extrapolate=False)
        values.append(float(curve(place)))
    return values[0] - values[1]


def test_intervals_are_those_of_curves_built_without_each_seed() -> None:
    frame = made_up_runs(targets=("pets",), rng_seed=4)
    found = pick(matched_views.rows(frame), "equal_val_accuracy")
    assert len(found) == 5
    for row in found:
        whole, *left = (
            naive_diff(part, "val_accuracy", row.at) for part in (frame, *without_each_seed(frame))
        )
        low, high, _ = t_by_leaving_out(whole, left)
        assert row.diff == pytest.approx(whole, rel=1e-9)
        assert [row.ci_low, row.ci_high] == pytest.approx([low, high], rel=1e-6)


@pytest.mark.slow
def test_an_interval_of_three_seeds_holds_the_truth_as_often_as_it_says() -> None:
    """A percentile bootstrap over three seeds held it in 76 of 100 studies."""
    rng, held = np.random.default_rng(5), []
    frame = two_lines(seeds=(1, 2, 3))
    studies = []
    for study in range(150):
        noisy = frame.assign(target=f"t{study}")
        noisy.val_accuracy += 0.004 * rng.normal(size=len(frame))
        noisy[OUTCOME] += 3 * rng.normal(size=len(frame))
        studies.append(noisy)
    for row in matched_views.rows(pd.concat(studies, ignore_index=True), metrics=[OUTCOME]):
        if row.view == "equal_val_accuracy" and row.ci_low is not None:
            held.append(row.ci_low <= -4 <= row.ci_high)
    assert len(held) > 700
    # Rows of a study go together: the error of this share is about 1 point.
    assert 0.92 < np.mean(held) < 0.98


@pytest.mark.slow
def test_images_widen_intervals_by_the_error_of_leaving_out_each_image() -> None:
    records = [with_images(r, 400) for r in synthetic_records(targets=("landcover",))]
    images, frame = Images(records), runs_frame(records).rename(columns={SHAPES: OUTCOME})
    wide, narrow = (
        pick(
            matched_views.rows(runs_frame(records), images=known),
            "equal_val_accuracy",
            SHAPES,
            target="landcover",
        )[2]
        for known in (images, None)
    )
    hits = {
        name: np.array([record.result.correct[name].hits for record in records], dtype=float)
        for name in (
            "val_accuracy",
            "transfer.shapes100.accuracy",
            "transfer.shapes100.baseline_accuracy",
        )
    }
    order = [list(frame["run_id"]).index(record.run_id) for record in records]

    def diff(name: str, image: int) -> float:
        without = frame.copy()
        means = {key: np.delete(h, image, 1).mean(axis=1) for key, h in hits.items()}
        val, now, before = means.values()
        column = "val_accuracy" if name == "val_accuracy" else OUTCOME
        value = val if name == "val_accuracy" else 100 * now / before
        without.loc[order, column] = value
        return naive_diff(without, "val_accuracy", wide.at)

    variance = 0.0
    for name in ("val_accuracy", OUTCOME):
        left_out = np.array([diff(name, image) for image in range(400)])
        variance += 399 / 400 * float(((left_out - left_out.mean()) ** 2).sum())
    assert wide.diff == narrow.diff
    # Leaving an image out bends the curve a little; the delta method takes it for straight.
    assert wide.image_se == pytest.approx(np.sqrt(variance), rel=0.1)
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high
    assert (wide.interval_over, narrow.interval_over) == ("seeds and images", "seeds")
    assert narrow.image_se is None


@pytest.mark.parametrize("part", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("n_rates", [3, 5])
def test_sensitivity_is_the_difference_of_scipys_readings(n_rates: int, part: float) -> None:
    rng = np.random.default_rng(n_rates)
    x, y = np.sort(rng.normal(size=n_rates)), rng.normal(size=(n_rates, 1))
    # At an end, a step moves the curve's own end past the place: curves may meet in that one point.
    place = {0.0: x[0], 1.0: x[-1]}.get(part, x[0] + part * (x[-1] - x[0]))
    along, up = sensitivity(x, y, place)

    def read(dx: np.ndarray, dy: np.ndarray) -> float:
        return float(PchipInterpolator(x + dx, y[:, 0] + dy)(place))

    for k in range(n_rates):
        step, nothing = 1e-5 * np.eye(n_rates)[k], np.zeros(n_rates)
        by_x = (read(step, nothing) - read(-step, nothing)) / 2e-5
        by_y = (read(nothing, step) - read(nothing, -step)) / 2e-5
        # One-sided steps of a millionth against two-sided ones of a hundred thousandth.
        assert along[0, k] == pytest.approx(by_x, rel=1e-3, abs=1e-4)
        assert up[0, k] == pytest.approx(by_y, rel=1e-3, abs=1e-4)


def test_points_of_one_knot_move_it_by_their_share() -> None:
    # Two rates of one accuracy: taken apart, a slope between them would be without end.
    x, y = np.array([0.5, 0.7, 0.7, 0.9, 0.8]), np.array([[9.0], [8.0], [6.0], [4.0], [0.0]])
    found = sensitivity(x, y, 0.75)
    knots = sensitivity(np.array([0.5, 0.7, 0.9]), np.array([[9.0], [7.0], [4.0]]), 0.75)
    for points, (first, pooled, last) in zip(found, (k[0] for k in knots), strict=True):
        expected = [first, pooled / 2, pooled / 2, last, 0]
        assert points[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_place_that_a_curve_misses_without_a_seed_has_no_interval() -> None:
    frame = two_lines(seeds=(1, 2, 3))
    best = (frame["method"] == "b") & (frame["learning_rate"] == frame["learning_rate"].max())
    frame.loc[best & (frame["seed"] == 2), "val_accuracy"] += 0.15
    row = pick(matched_views.rows(frame), "equal_val_accuracy")[-1]
    assert row.diff is not None
    assert (row.ci_low, row.reason) == (
        None,
        "undefined without one of the seeds: no interval",
    )


def test_one_seed_left_at_a_rate_is_no_spread_there() -> None:
    frame = two_lines(seeds=(1, 2, 3))
    frame[OUTCOME] += np.random.default_rng(0).normal(size=len(frame))
    top = frame["learning_rate"] == frame["learning_rate"].max()
    row = pick(matched_views.rows(frame[~top | (frame["seed"] == 2)]), "equal_val_accuracy")[2]
    assert row.diff is not None
    assert row.reason == "one seed at one of the learning rates: no interval"


def test_no_overlap_is_null_with_a_reason() -> None:
    frame = two_lines()
    frame.loc[frame["method"] == "b", "val_accuracy"] -= 0.5
    (row,) = pick(matched_views.rows(frame), "equal_val_accuracy")
    assert (row.at, row.value_a, row.diff, row.ci_low) == (None, None, None, None)
    assert row.reason == "the curves do not overlap"


def test_a_method_that_does_not_move_has_no_curve() -> None:
    frame = two_lines()
    frame.loc[frame["method"] == "b", "drift.weight_drift_rel"] = 0.0
    (row,) = pick(matched_views.rows(frame), "equal_weight_drift")
    assert row.reason == "the curve of b has fewer than two distinct values"


def test_one_rate_makes_no_curve() -> None:
    (row,) = pick(matched_views.rows(made_up_runs(rates=(1e-5,))), "equal_val_accuracy")
    assert row.reason == "the curve of full_ft has fewer than two distinct values"


def test_rates_that_never_meet() -> None:
    frame = two_lines()
    frame.loc[frame["method"] == "b", "learning_rate"] *= 3
    rows = matched_views.rows(frame)
    assert pick(rows, "equal_val_accuracy")[2].diff == pytest.approx(-4, rel=1e-9)


def test_one_seed_has_values_but_no_band() -> None:
    found = pick(matched_views.rows(two_lines(seeds=(7,))), "equal_val_accuracy")
    assert [row.diff for row in found] == pytest.approx([-4] * 5, rel=1e-9)
    assert {(row.ci_low, row.reason) for row in found} == {(None, "one seed: no interval")}


def test_records_without_weight_movement() -> None:
    frame = two_lines().drop(columns=["drift.weight_drift_rel"])
    (row,) = pick(matched_views.rows(frame), "equal_weight_drift")
    assert row.reason == "no drift.weight_drift_rel in these records"


def test_one_method_has_nothing_to_be_held_against() -> None:
    assert matched_views.rows(made_up_runs(methods=("lora",))) == []


def test_what_is_held_equal_is_not_compared() -> None:
    rows = matched_views.rows(two_lines())
    assert pick(rows, "equal_val_accuracy", "val_accuracy") == []
    assert len(pick(rows, "equal_weight_drift", "val_accuracy")) == 5


def test_the_order_of_the_rows_changes_no_digit() -> None:
    frame = made_up_runs()
    ours = matched_views.rows(frame)
    assert matched_views.rows(shuffled(frame)) == ours
