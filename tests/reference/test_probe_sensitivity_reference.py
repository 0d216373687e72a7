"""Probe-set sensitivity against values worked by hand, and the reading of the tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_records import record

from clipdrift.analysis.questions import probe_sensitivity
from clipdrift.analysis.questions.probe_sensitivity import dealt_by_class, in_turn, read_tables
from clipdrift.records import StudyFolder


def table(n: int = 200, classes: int = 10, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), n // classes)
    entropy = 3.5 + 0.1 * label + 0.01 * rng.normal(size=n)
    return pd.DataFrame({"image": np.arange(n), "label": label, "cls_entropy_nats": entropy})


def only(rows: list[dict[str, Any]]) -> Any:
    assert len(rows) == 1
    return rows[0]


def test_subsets_are_disjoint_balanced_and_whole() -> None:
    images = table(n=210, classes=7)
    dealt = dealt_by_class(images, seed=3)
    subsets = [dealt[i::5] for i in range(5)]
    assert sorted(np.concatenate(subsets)) == list(range(210))
    for subset in subsets:
        assert set(np.bincount(images["label"].to_numpy()[subset])) == {6}


def test_unequal_classes_differ_by_one_image_at_most() -> None:
    images = pd.DataFrame({"image": range(29), "label": ["a"] * 11 + ["b"] * 18})
    dealt = dealt_by_class(images, seed=0)
    for label in "ab":
        counts = [(images["label"].iloc[dealt[i::5]] == label).sum() for i in range(5)]
        assert max(counts) - min(counts) <= 1


def test_classes_take_turns() -> None:
    images = table()
    order = in_turn(images, dealt_by_class(images, seed=1))
    rounds = images["label"].to_numpy()[order].reshape(20, 10)
    assert (np.sort(rounds, axis=1) == np.arange(10)).all()


def test_cv_and_settling_are_those_of_the_definition() -> None:
    images = table()
    row = only(probe_sensitivity.rows({"run": images}, seed=4))
    values = images["cls_entropy_nats"].to_numpy()
    dealt = dealt_by_class(images, seed=4)
    means = [np.mean([values[i] for i in dealt[k::5]]) for k in range(5)]
    assert row.cv == pytest.approx(np.std(means, ddof=1) / np.mean(values), rel=1e-9)
    assert row.mean == pytest.approx(values.mean(), rel=1e-12)
    shown = values[in_turn(images, dealt)]
    close = [abs(shown[:k].mean() / values.mean() - 1) <= 1e-3 for k in range(1, 201)]
    settled = next(k for k in range(1, 201) if all(close[k - 1 :]))
    assert row.settled_at == settled
    assert 1 < settled < 200
    assert (row.n_images, row.n_subsets, row.reason) == (200, 5, None)


def test_balance_removes_the_spread_between_classes() -> None:
    images = table()
    balanced = only(probe_sensitivity.rows({"run": images})).cv
    blind = only(probe_sensitivity.rows({"run": images.drop(columns="label")})).cv
    assert balanced < 0.001 < blind


def test_last_image_out_of_line_settles_only_with_all() -> None:
    images = pd.DataFrame({"image": range(10), "s": 1.0})
    order = in_turn(images, dealt_by_class(images, seed=0))
    images.loc[order[-1], "s"] = 2.0
    assert only(probe_sensitivity.rows({"run": images}, seed=0)).settled_at == 10


def test_rows_in_another_order_and_shared_deal_between_runs() -> None:
    images = table()
    mixed = images.sample(frac=1, random_state=2)
    one, two = probe_sensitivity.rows({"b": mixed, "a": images})
    assert (one.run_id, two.run_id) == ("a", "b")
    assert replace(one, run_id="b") == two


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, np.nan, 2.0, 3.0, 4.0], "undefined on 1 of 5 images"),
        ([1.0, -1.0, 2.0, -2.0, 0.0], "the mean is 0: no relative spread"),
        ([1.0, 2.0, 3.0], "3 images for 5 subsets"),
        ([], "no images"),
    ],
)
def test_undefined_cv_says_why(values: list[float], reason: str) -> None:
    images = pd.DataFrame({"image": range(len(values)), "s": np.array(values, dtype=float)})
    row = only(probe_sensitivity.rows({"run": images}))
    assert (row.cv, row.reason) == (None, reason)


def test_tables_are_read_beside_the_records(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    for name in ("good", "torn", "strange", "twice"):
        folder.run_path(name).mkdir(parents=True)
    (folder.run_path("none")).mkdir()
    path = probe_sensitivity.FILE_NAME
    table().to_parquet(folder.run_path("good") / path)
    (folder.run_path("torn") / path).write_bytes(b"PAR1 but no more")
    pd.DataFrame({"x": [1]}).to_parquet(folder.run_path("strange") / path)
    pd.DataFrame({"image": [1, 1]}).to_parquet(folder.run_path("twice") / path)
    names = ("good", "none", "strange", "torn", "twice")
    tables, faults = read_tables(folder, [record(run_id=name, files={}) for name in names])
    assert list(tables) == ["good"]
    assert probe_sensitivity.rows(tables) == probe_sensitivity.rows({"good": table()})
    assert [Path(fault.where).parent.name for fault in faults] == ["strange", "torn", "twice"]
    assert str(faults[1]).endswith(
        "torn/probe_images.parquet: expected the recorded table of probe images, with distinct "
        "values in 'image', got a damaged or different file. Run the study again to redo the run."
    )


def test_readings_of_the_untouched_backbone_are_no_signals() -> None:
    images = table().assign(gini=1.0, gini_baseline=2.0)
    names = {row.signal for row in probe_sensitivity.rows({"run": images})}
    assert "gini" in names
    assert "gini_baseline" not in names
