"""Records as tables: names, order, undefined values, duplicates."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pandas as pd
import pytest

from clipdrift.analysis.frame import history_frame, metric_columns, per_block_frame, runs_frame
from clipdrift.analysis.usable import usable_records
from clipdrift.records import RunRecord
from clipdrift.records.transfer import TransferReading

MakeRecords = Callable[..., list[RunRecord]]


def test_columns_carry_the_numbers_of_the_record(make_records: MakeRecords) -> None:
    records = make_records()
    frame = runs_frame(records).set_index("run_id")
    assert len(frame) == len(records) == 48
    for record in records:
        row = frame.loc[record.run_id]
        result, early = record.result, record.history[1]
        assert early.epoch == 1
        transfer = result.transfer["cifar10"]
        assert row["transfer.cifar10.retention_pct"] == transfer.retention_pct
        assert row["transfer.cifar10.delta_accuracy_pp"] == transfer.delta_accuracy_pp
        assert row["test_accuracy"] == result.test_accuracy
        assert row["drift.cka_mean"] == result.drift["cka_mean"]
        assert row["levels.erf95"] == result.levels["erf95"]
        assert row["epoch1.drift.cka_mean"] == early.drift["cka_mean"]
        assert row["epoch1.transfer.cifar10.accuracy"] == early.transfer["cifar10"].accuracy
        assert row["epoch1.val_accuracy"] == early.val_accuracy
        assert row["fingerprint_data"] == record.fingerprints["data"]
        assert (row["learning_rate"], row["seed"]) == (record.learning_rate, record.seed)
        assert (row["selected_epoch"], row["leak"]) == (2, False)


def test_the_peak_is_the_best_epoch_up_to_the_one_that_was_kept(make_records: MakeRecords) -> None:
    record = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,), seeds=(7,))[0]
    for entry, accuracy in zip(record.history, (0.2, 0.9, None), strict=True):
        entry.val_accuracy = accuracy
    peaks = []
    for kept in (0, 1, 2, None):
        record.selected_epoch = kept
        peaks += runs_frame([record])["peak_val_accuracy"].tolist()
    assert peaks == [0.2, 0.9, 0.9, 0.9]
    record.history = []
    assert math.isnan(runs_frame([record])["peak_val_accuracy"].item())


def test_metrics_are_what_was_measured_on_a_run(make_records: MakeRecords) -> None:
    frame = runs_frame(make_records())
    names = metric_columns(frame)
    assert names[:2] == ["val_accuracy", "test_accuracy"]
    assert not [n for n in names if "baseline" in n or n.startswith("fingerprint")]
    assert "transfer.cifar10.baseline_accuracy" in frame
    assert all(frame[name].dtype == "float64" for name in names)


def test_order_of_records_changes_nothing(make_records: MakeRecords) -> None:
    records = make_records(linear_probe=True)
    mixed = records[:]
    random.Random(0).shuffle(mixed)
    for make in (runs_frame, per_block_frame, history_frame):
        pd.testing.assert_frame_equal(make(mixed), make(records))
    keys = runs_frame(records)[["backbone", "target", "role", "method", "learning_rate", "seed"]]
    assert keys.values.tolist() == sorted(keys.values.tolist())


def test_undefined_is_nan_in_the_frame_only(make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,))
    records[0].result.test_accuracy = None
    records[1].result.drift["cka_mean"] = math.inf
    records[2].result.drift["cka_mean"] = math.nan
    frame = runs_frame(records)
    assert frame["test_accuracy"].isna().tolist() == [True, False, False]
    assert frame["drift.cka_mean"].isna().tolist() == [False, True, True]


def test_fields_that_no_record_defines_have_no_column(make_records: MakeRecords) -> None:
    (record,) = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,), seeds=(7,))
    record.result.transfer = {"c": TransferReading(accuracy=None, retention_pct=50.0)}
    record.result.drift = {"cka_mean": None}
    record.history = []
    names = metric_columns(runs_frame([record]))
    # A drift that was reported as undefined stays; a field of the schema that nobody filled goes.
    assert [n for n in names if not n.startswith("levels.")] == [
        "val_accuracy",
        "test_accuracy",
        "drift.cka_mean",
        "transfer.c.retention_pct",
    ]


def test_unfinished_runs_are_left_out(make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,))
    records[0].status, records[1].status = "diverged", "failed"
    assert runs_frame(records)["run_id"].tolist() == [records[2].run_id]


def test_equal_duplicates_count_once_and_contradicting_ones_not_at_all(
    make_records: MakeRecords,
) -> None:
    first, second, third = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,))
    same = first.model_copy(update={"run_id": first.run_id + "-again"}, deep=True)
    other = second.model_copy(update={"run_id": second.run_id + "-again"}, deep=True)
    other.result.test_accuracy = 0.1
    kept = usable_records([same, other, first, second, third])
    assert [record.run_id for record in kept] == [first.run_id, third.run_id]
    moved = first.model_copy(update={"run_id": "moved"}, deep=True)
    moved.fingerprints["data"] = "other split"
    assert [r.run_id for r in usable_records([first, moved, third])] == [third.run_id]
    earlier = first.model_copy(update={"run_id": "earlier"}, deep=True)
    earlier.history[1].drift["cka_mean"] = 0.5
    assert [r.run_id for r in usable_records([first, earlier, third])] == [third.run_id]


def test_blocks_count_from_one(make_records: MakeRecords) -> None:
    (record,) = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,), seeds=(7,))
    record.result.levels_per_block = {"gini": [0.1, None, 0.3, 0.4]}
    blocks = per_block_frame([record])
    cka = blocks[blocks["signal"] == "drift.cka"]
    assert cka["block"].tolist() == [1, 2, 3, 4]
    assert cka["value"].tolist() == record.result.drift_per_block["cka"]
    gini = blocks[blocks["signal"] == "levels.gini"]["value"]
    assert gini.isna().tolist() == [False, True, False, False]


def test_history_has_every_epoch(make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,), epochs=3)
    history = history_frame(records)
    assert history["epoch"].tolist() == [0, 1, 2, 3] * 3
    own = history[history["run_id"] == records[0].run_id]
    assert own["drift.gini_pct"].tolist() == [e.drift["gini_pct"] for e in records[0].history]
    assert own["train_loss"].tolist() == pytest.approx([2.0, 1.0, 2 / 3, 0.5])


def test_history_has_the_penalties_of_the_runs_that_have_them(make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), rates=(1e-5,), seeds=(7,), epochs=2)
    held, free = records
    for entry in held.history[1:]:
        entry.penalties = {"l2_sp": 0.25 * entry.epoch}
    history = history_frame(records)
    own, others = (history[history["run_id"] == r.run_id]["penalty.l2_sp"] for r in (held, free))
    assert own.isna().tolist() == [True, False, False]
    assert own.tolist()[1:] == [0.25, 0.5]
    assert others.isna().all()


def test_no_records_give_empty_tables() -> None:
    frame = runs_frame([])
    assert len(frame) == len(per_block_frame([])) == len(history_frame([])) == 0
    assert {"run_id", "test_accuracy"} <= set(frame.columns)
