"""Classes that fell, into which, and images: planted losses are found, and where nothing is lost
seldom any.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from synthetic_records import synthetic_records

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import calibrated, lost_classes, lost_images
from clipdrift.analysis.statistics.crossed import Error, crossed
from clipdrift.records import RunRecord

CLASSES = [f"c{i}" for i in range(8)]
IMAGES = 40


def runs() -> list[RunRecord]:
    return synthetic_records(targets=("digits",), methods=("lora",), rates=(1e-4,))


def table(label: np.ndarray, before: np.ndarray, now: np.ndarray) -> pd.DataFrame:
    near = {"nearest_target": "seven", "similarity": np.float32(0.5)}
    n = np.arange(len(label))
    near |= {"image": 3 * n, "margin": np.float32(-0.001 * (n * 37 % 101)), "baseline_margin": 0.1}
    columns: dict[str, Any] = {"set": "s", "label": label, "predicted": now}
    return pd.DataFrame({**columns, "baseline_predicted": before, **near})


def drawn(rng: np.random.Generator, *, planted: float) -> dict[str, pd.DataFrame]:
    """Three seeds: one image in ten changes either way, and c3 is taken for c5 at a rate more."""
    label = np.repeat(CLASSES, IMAGES)
    wrong = np.where(label == "c0", "c1", "c0")
    was = rng.random(len(label)) < 0.7
    turns = rng.random(len(label))  # of an image, in every seed nearly alike
    out = {}
    for record in runs():
        flip = turns + 0.02 * rng.normal(size=len(label)) < 0.1
        right = np.where(flip, rng.random(len(label)) < 0.7, was)
        now = np.where(right, label, wrong)
        fell = (label == "c3") & (rng.random(len(label)) < planted)
        now = np.where(fell, "c5", now)
        out[record.run_id] = table(label, np.where(was, label, wrong), now)
    return out


def test_the_planted_class_is_named_with_the_one_it_fell_into() -> None:
    tables = drawn(np.random.default_rng(1), planted=0.7)
    first, *rest = lost_classes.rows(runs(), tables)
    assert (first.class_name, first.fell_into, first.n_images) == ("c3", "c5", IMAGES)
    assert (first.nearest_target, first.similarity) == ("seven", 0.5)
    assert first.p_holm is not None
    assert first.p_holm < 0.05
    assert not [row for row in rest if row.p_holm is not None and row.p_holm < 0.05]


def test_numbers_of_a_class_are_counted_by_hand_and_p_is_holms() -> None:
    tables = drawn(np.random.default_rng(2), planted=0.4)
    rows = lost_classes.rows(runs(), tables)
    raw = []
    for row in rows:
        parts = [part[part["label"] == row.class_name] for part in tables.values()]
        before = (parts[0]["baseline_predicted"] == row.class_name).to_numpy(dtype=float)
        now = np.array([(part["predicted"] == row.class_name).to_numpy() for part in parts])
        assert row.accuracy_before == pytest.approx(before.mean())
        assert row.accuracy_now == pytest.approx(now.mean())
        assert row.change_pp == pytest.approx(100 * (now.mean() - before.mean()))
        found = crossed(100 * (now - before), (100.0, -100.0))
        assert found.seed_se is not None
        if len({*now.mean(axis=1)}) == 1:  # of equal means the error is not known
            assert (row.p_holm, row.reason) == (None, lost_classes.STILL)
            continue
        assert (row.ci_low, row.ci_high) == pytest.approx(tuple(np.clip(found.ci, -100, 100)))
        raw.append(Error(found.seed_se, found.shared_se, *now.shape).p(row.change_pp))
    adjusted = multipletests(raw, method="holm")[1]
    told = [row.p_holm for row in rows if row.p_holm is not None]
    assert told == pytest.approx(adjusted.tolist(), rel=1e-9)
    assert len(told) >= 5
    assert [row.change_pp for row in rows] == sorted(row.change_pp for row in rows)


@pytest.mark.slow
def test_where_nothing_is_lost_few_studies_name_a_class() -> None:
    rng, named = np.random.default_rng(3), 0
    for _ in range(120):
        rows = lost_classes.rows(runs(), drawn(rng, planted=0.0))
        named += any(row.p_holm is not None and row.p_holm < 0.05 for row in rows)
    assert named / 120 < 0.12  # 5 % promised; two standard errors of 120 studies are 4 points


def test_flows_are_those_of_a_cross_table_and_the_planted_one_is_the_largest() -> None:
    tables = drawn(np.random.default_rng(5), planted=0.7)
    flows, _ = lost_images.rows(runs(), tables)
    whole = pd.concat(tables.values())
    lost = whole[
        (whole["baseline_predicted"] == whole["label"]) & (whole["predicted"] != whole["label"])
    ]
    counted = pd.crosstab(lost["label"], lost["predicted"])
    assert (flows[0].class_name, flows[0].fell_into) == ("c3", "c5")
    for row in flows:
        n = counted.at[row.class_name, row.fell_into]
        assert (row.n_lost, row.share) == pytest.approx((n / 3, n / len(lost)))
        assert row.n_lost_in_set == pytest.approx(len(lost) / 3)
    assert len(flows) == min(20, int((counted > 0).to_numpy().sum()))


def test_images_are_picked_by_the_stated_rule_and_shown_where_the_licence_lets_them() -> None:
    records, tables = runs(), drawn(np.random.default_rng(6), planted=0.7)
    part = tables[records[0].run_id]
    lost = part[
        (part["baseline_predicted"] == part["label"]) & (part["predicted"] != part["label"])
    ]
    expected = lost.sort_values("margin", kind="stable").drop_duplicates("label").head(4)
    for stated, reason in (
        ({}, lost_images.NO_LICENCE),
        ({"s": "research use"}, lost_images.ANOTHER_LICENCE),
        ({"s": "CC0"}, None),
    ):
        records[0].provenance = {"licences": stated}
        _, found = lost_images.rows(records, tables)
        assert [row.image for row in found] == expected["image"].tolist()
        assert [row.fell_into for row in found] == expected["predicted"].tolist()
        assert {row.run_id for row in found} == {records[0].run_id}
        assert {row.reason for row in found} == {reason}


def test_calibration_has_students_interval_and_none_below_nothing() -> None:
    records, values = runs(), (0.02, 0.3, 0.1)
    for record, value in zip(records, values, strict=True):
        numbers = {"ece": value, "brier": 0.5, "ece_refit": 0.01}
        record.result.transfer["cifar10"].in_full = {
            **numbers,
            **{f"baseline_{name}": number / 2 for name, number in numbers.items()},
            "baseline_ece": 0.05,
        }
    found = {row.metric: row for row in calibrated.rows(runs_frame(records))}
    row = found["transfer.cifar10.ece"]
    assert (row.before, row.refit_now, row.refit_before) == (0.05, 0.01, 0.005)
    high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))[1]
    assert (row.now, row.ci_low, row.ci_high) == pytest.approx((0.14, 0.0, high))
    assert found["transfer.cifar10.brier"].refit_now is None
    assert set(found) == {"transfer.cifar10.ece", "transfer.cifar10.brier"}


def test_one_seed_has_neither_interval_nor_p() -> None:
    only = runs()[:1]
    tables = drawn(np.random.default_rng(4), planted=0.5)
    for row in lost_classes.rows(only, tables):
        assert (row.ci_low, row.ci_high, row.p_holm) == (None, None, None)
        assert row.reason == "one seed: no interval and no test"
