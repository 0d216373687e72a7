"""Retention of what an untouched model does not know is none, in new records and in old ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from report_study import study_folder
from scipy import stats
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.frame import metric_columns, runs_frame
from clipdrift.analysis.questions import caveats
from clipdrift.analysis.statistics.influence import Images as Answers
from clipdrift.analysis.statistics.influence import retention_error
from clipdrift.analysis.summary import analyze
from clipdrift.data.images import Images
from clipdrift.reading.model import transfer_reading
from clipdrift.records import RunRecord, read_record
from clipdrift.records.correct import Correct
from clipdrift.records.transfer import TransferReading, wilson_low
from clipdrift.report.answer import answers
from clipdrift.report.read import read_study
from clipdrift.spec import content_hash

WHY = "the untouched model is not distinguishable from chance: 1 of 100 right, chance 1 %"


def labelled(labels: NDArray[np.int64]) -> Images:
    return Images(np.zeros((len(labels), 1, 1, 3), np.uint8), np.arange(len(labels)), labels)


def read(right: int, n: int, n_classes: int = 100) -> TransferReading:
    before = Correct.of(np.arange(n) < right)
    return transfer_reading(before, before, labelled(np.arange(n) % n_classes), n_classes)


@pytest.mark.parametrize(("right", "n"), [(1, 100), (0, 7), (7, 7), (61, 600), (250, 1000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson").low
    assert wilson_low(right / n, n) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_baseline_at_chance_has_an_accuracy_and_no_retention() -> None:
    reading = read(1, 100)
    assert (reading.baseline_accuracy, reading.delta_accuracy_pp, reading.chance) == (0.01, 0, 0.01)
    assert (reading.retention_pct, reading.chance_corrected_retention_pct) == (None, None)
    assert reading.at_chance == WHY
    assert (read(9, 100).retention_pct, read(9, 100).at_chance) == (100.0, None)


def test_a_retention_of_few_right_images_says_so() -> None:
    few, enough = read(30, 100), read(400, 500)
    assert few.few_right is not None
    assert "30 of 100 images" in few.few_right
    assert "18 points" in few.few_right  # two standard errors of 15 of 30: 200 * sqrt(.25 / 30)
    assert enough.few_right is None
    assert read(1, 100).few_right is None  # there is no retention
    records = [with_images(one, 60) for one in synthetic_records(targets=("digits",))[:2]]
    told = [row for row in caveats.rows(records) if row.kind == "few_right_images"]
    assert [row.detail.split(":")[0] for row in told] == ["cifar10", "shapes100"]
    assert told[0].run_ids == sorted(record.run_id for record in records)
    right, ids = Answers(records), [records[0].run_id]
    assert str(right.few_right(ids[0], "cifar10")) in told[0].detail
    names = ("lost_pp", "delta_accuracy_pp")
    lost, change = (right.influence(ids, f"transfer.cifar10.{name}") for name in names)
    assert lost is not None
    assert change is not None
    assert (lost.values == -change.values).all()


def test_the_error_of_one_retention_is_that_of_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(300) < 0.7
    now = np.where(rng.random(300) < 0.2, rng.random(300) < 0.4, before)
    drawn = rng.integers(0, 300, (4000, 300))
    kept = 100 * now[drawn].mean(axis=1) / before[drawn].mean(axis=1)
    error = retention_error(Correct.of(now), Correct.of(before))
    assert error == pytest.approx(kept.std(), rel=0.06)


def test_chance_is_that_of_the_commonest_class() -> None:
    """80 of 100 images are of one class: 80 right are no more than its name tells."""
    before = Correct.of(np.arange(100) < 80)
    labels = np.where(np.arange(100) < 80, 0, 1)
    reading = transfer_reading(before, before, labelled(labels), 2)
    assert (reading.chance, reading.retention_pct) == (0.8, None)
    assert reading.at_chance is not None


def test_what_is_not_known_is_not_judged() -> None:
    assert (
        TransferReading(accuracy=0.01, baseline_accuracy=0.01, retention_pct=100).at_chance is None
    )
    counted = TransferReading(accuracy=0.01, baseline_accuracy=0.01, n_images=100, n_classes=100)
    assert counted.at_chance == WHY
    assert TransferReading(accuracy=0.5, n_images=100, n_classes=100).at_chance is None


def older(tmp_path: Path) -> RunRecord:
    """A record with a retention of 100 % at chance, sealed when that was not asked."""
    body = json.loads(synthetic_records()[0].to_json())
    body["result"]["transfer"]["world"] = {
        **dict.fromkeys(("accuracy", "baseline_accuracy"), 0.01),
        **dict.fromkeys(("retention_pct", "chance_corrected_retention_pct"), 100.0),
        "delta_accuracy_pp": 0.0,
        "n_images": 100,
        "n_classes": 100,
    }
    body["result"]["extra"] = {
        "interpolation.0.5.transfer.world.retention_pct": 100.0,
        "interpolation.0.5.transfer.cifar10.retention_pct": 100.0,
    }
    body.pop("checksum")
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**body, "checksum": content_hash(body)}))
    return read_record(path)


def test_older_records_lose_such_a_retention_and_say_why(tmp_path: Path) -> None:
    record = older(tmp_path)
    assert record.result.transfer["world"].retention_pct is None
    assert record.result.extra["interpolation.0.5.transfer.world.retention_pct"] is None
    assert record.result.extra["interpolation.0.5.transfer.cifar10.retention_pct"] == 100.0
    for name in ("transfer.world", "extra.interpolation.0.5.transfer.world"):
        assert record.undefined[f"{name}.retention_pct"] == WHY


def test_analysis_has_no_retention_there_and_chance_beside_the_baseline(tmp_path: Path) -> None:
    record = older(tmp_path)
    runs = runs_frame([record])
    assert "transfer.world.retention_pct" not in runs
    assert runs.loc[0, ["transfer.world.chance", "transfer.cifar10.chance"]].tolist() == [0.01, 0.1]
    assert not any(name.endswith(".chance") for name in metric_columns(runs))
    result = analyze([record])
    assert {row["transfers"][0] for row in result["choice"]} == {"cifar10"}
    said = [row["detail"] for row in result["warnings"] if row["kind"] == "undefined_value"]
    assert f"transfer.world.retention_pct: {WHY}" in said


def test_no_headline_is_made_of_it_and_the_limits_say_so(tmp_path: Path) -> None:
    records = synthetic_records(targets=("digits",), seeds=(7, 11))
    for record in records:
        record.result.transfer["world"] = read(1, 100)
    (answer,) = answers(read_study(study_folder(tmp_path / "study", records)))
    sentences = ["".join(map(str, sentence)) for sentence in answer.sentences]
    assert any("on cifar10 (62.0\xa0%, chance 10.0\xa0%)" in text for text in sentences)
    assert not any("world" in text for text in sentences)
    assert not any("world" in column.label for column in answer.table.columns)
    limits = ["".join(map(str, sentence)) for sentence in answer.limits]
    assert f"What is kept on world is undefined: {WHY}." in limits
