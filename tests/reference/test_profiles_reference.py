"""Means block by block and epoch by epoch, and shared factors, against numbers read by hand."""

from __future__ import annotations

import statistics

import pytest
from synthetic_records import synthetic_records

from clipdrift.analysis.frame import history_frame, per_block_frame
from clipdrift.analysis.questions import matchedness, profiles
from clipdrift.records import RunRecord

ENTROPY = "drift.cls_entropy_pct"


def records() -> list[RunRecord]:
    return synthetic_records(targets=("digits",), rates=(1e-5, 1e-4), blocks=3, epochs=2)


def same_cell(record: RunRecord, row: profiles.OfProfile) -> bool:
    return (record.method, record.learning_rate) == (row.method, row.learning_rate)


def test_a_block_is_the_mean_over_the_seeds_of_its_cell() -> None:
    found = records()
    for record in found:
        if record.method == "lora" and record.seed == 7:
            record.result.drift_per_block["cls_entropy_pct"][1] = None
    rows = profiles.by_block(per_block_frame(found))
    signals = found[0].result.drift_per_block
    assert len(rows) == 4 * 3 * len(signals)
    for row in rows:
        name = row.metric.removeprefix("drift.")
        own = [
            value
            for record in found
            if same_cell(record, row)
            and (value := record.result.drift_per_block[name][row.block - 1]) is not None
        ]
        assert (row.n, row.mean) == (len(own), pytest.approx(statistics.fmean(own), rel=1e-12))
        assert row.sd == pytest.approx(statistics.stdev(own), rel=1e-9)
        gap = row.method == "lora" and row.metric == ENTROPY and row.block == 2
        assert row.reason == ("undefined in 1 of 3 runs" if gap else None)


def test_an_epoch_is_the_mean_over_the_seeds_and_has_no_row_for_what_is_not_there() -> None:
    found = records()
    for record in found:
        if record.method == "full_ft":
            record.history[1].penalties = {"l2_sp": record.seed / 2}
    rows = profiles.by_epoch(history_frame(found))
    at = {(row.method, row.learning_rate, row.metric, row.epoch): row for row in rows}
    assert {row.epoch for row in rows} == {0, 1, 2}
    for epoch in (1, 2):
        own = [
            record.history[epoch].val_accuracy
            for record in found
            if (record.method, record.learning_rate) == ("lora", 1e-4)
        ]
        row = at["lora", 1e-4, "val_accuracy", epoch]
        assert row.mean == pytest.approx(statistics.fmean(own), rel=1e-12)
        assert row.sd == pytest.approx(statistics.stdev(own), rel=1e-9)
    assert at["full_ft", 1e-5, "penalty.l2_sp", 1].mean == pytest.approx((7 + 11 + 19) / 6)
    assert {key[0] for key in at if key[2] == "penalty.l2_sp"} == {"full_ft"}
    assert not any(row.metric.startswith(("levels.", "extra.")) for row in rows)


def test_a_factor_is_shared_where_all_matched_runs_agree() -> None:
    found = records()
    odd = next(record for record in found if record.method == "lora")
    odd.fingerprints["data"] = "other"
    odd.fingerprints["schedule"] = "other"
    found[-1].fingerprints.pop("backbone")
    rows = {row.factor: row for row in matchedness.rows(found, varied=["schedule"])}
    told = {name: (row.n_agree, row.n_groups, row.verdict) for name, row in rows.items()}
    assert told["data"] == (5, 6, "differs")
    assert told["schedule"] == (5, 6, "varied on purpose")
    assert told["backbone"] == (5, 5, "shared")
    assert told["image_order"] == (6, 6, "shared")
