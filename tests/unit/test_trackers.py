"""Runs in a tracker hold the numbers of their records: read back with each tracker's own reader."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from offline_logs import mlflow_run, offline_history
from synthetic_records import synthetic_records

from clipdrift.errors import SpecError
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.study.trackers import Tracking, log_record

NAMES = ("val_accuracy", "drift.cls_entropy_pct", "transfer.cifar10.retention_pct")


@pytest.fixture
def record() -> RunRecord:
    return synthetic_records(targets=("digits",), methods=("lora",), rates=(1e-4,), seeds=(7,))[0]


def told(record: RunRecord, name: str) -> list[float]:
    """A number of the record after each epoch, by a path of its own."""
    out = []
    for epoch in record.history:
        value: Any = epoch.model_dump()
        for part in name.split("."):
            value = value[part]
        out.append(value)
    return out


def test_tensorboard_holds_every_epoch_and_the_result(record: RunRecord, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_record(record, "tensorboard", tmp_path)
    found = EventAccumulator(str(tmp_path / "trackers/tensorboard" / record.run_id)).Reload()
    for name in NAMES:
        events = found.Scalars(f"clipdrift/{name}")
        assert [one.step for one in events] == [epoch.epoch for epoch in record.history]
        assert [one.value for one in events] == pytest.approx(told(record, name))
    (final,) = found.Scalars("clipdrift/final/test_accuracy")
    assert final.value == pytest.approx(record.result.test_accuracy)


@pytest.mark.slow
def test_weights_and_biases_holds_them_offline(
    record: RunRecord, wandb_offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_record(record, "wandb", wandb_offline)
    assert capsys.readouterr() == ("", "")
    found = offline_history(wandb_offline / "trackers")
    for name in NAMES:
        assert found[f"clipdrift/{name}"] == pytest.approx(told(record, name))
    assert found["clipdrift/final/test_accuracy"] == [record.result.test_accuracy]


def test_mlflow_holds_them_with_what_the_run_is(record: RunRecord, mlflow_offline: Path) -> None:
    log_record(record, "mlflow", mlflow_offline)
    run, history = mlflow_run()
    assert run.info.run_name == record.run_id
    assert run.data.params["learning_rate"] == "0.0001"
    for name in NAMES:
        assert history(f"clipdrift/{name}") == pytest.approx(told(record, name))


@pytest.mark.slow
def test_trackio_holds_them_with_what_the_run_is(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    log_record(record, "trackio", tmp_path)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs(record.study)
    assert run.name == record.run_id
    assert run.config.items() >= {"learning_rate": 1e-4, "method": "lora", "seed": 7}.items()
    rows = SQLiteStorage.get_logs(record.study, run.name, run_id=run.id)
    for name in NAMES:
        found = {row["step"]: row[key] for row in rows if (key := f"clipdrift/{name}") in row}
        steps = [epoch.epoch for epoch in record.history]
        assert [found[step] for step in steps] == pytest.approx(told(record, name))
    final = "clipdrift/final/test_accuracy"
    assert [row[final] for row in rows if final in row] == [record.result.test_accuracy]


def test_a_study_logs_the_runs_that_end_and_outlives_a_tracker(
    record: RunRecord, tmp_path: Path
) -> None:
    folder, events = StudyFolder(tmp_path), list[dict[str, Any]]()
    folder.create()
    atomic_write(folder.record_path(record.run_id), record.to_json())
    measured = {"event": "measured", "key": record.run_id}
    with closing(Tracking("tensorboard", folder, events.append)) as tracking:
        tracking({"event": "epoch", "key": record.run_id})
        tracking(measured)
    assert [one["event"] for one in events] == ["epoch", "measured"]
    assert list((tmp_path / "trackers/tensorboard" / record.run_id).glob("events.*"))

    folder = StudyFolder(tmp_path / "other")
    folder.create()
    atomic_write(folder.record_path(record.run_id), record.to_json())
    (folder.path / "trackers").write_text("a file in the way")
    with closing(Tracking("tensorboard", folder, events.append)) as tracking:
        tracking(measured)
        tracking(measured)
    assert [one["text"].partition(" (")[0] for one in events if "text" in one] == [
        "tensorboard failed"
    ]


def test_unknown_and_missing_trackers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StudyFolder(tmp_path)
    with pytest.raises(SpecError, match="expected one of tensorboard, wandb, mlflow, trackio"):
        Tracking("aim", folder, print)
    monkeypatch.setattr("clipdrift.study.trackers.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"expected wandb to be installed.*clipdrift\[trackers\]"):
        Tracking("wandb", folder, print)
