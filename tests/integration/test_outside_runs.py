"""A training of one's own stands beside the runs of a study, with the numbers a run would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import by_method, measured_study
from report_study import write_page
from tiny_study import tiny
from transformers import AutoModel

import clipdrift
from clipdrift.errors import RecordError, StudyFolderError
from clipdrift.finished.export import export_merged
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report.recomputed import audit_report

SPEC = tiny(
    methods=[{"name": "full_ft", "kind": "full_ft"}, {"name": "lora", "kind": "lora"}],
    transfers=[{"name": "world", "builtin": "world", "n_images": 60}],
    schedule={"epochs": 1, "batch_size": 20},
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> StudyFolder:
    return measured_study(SPEC, tmp_path_factory.mktemp("study"), cache_dir, n_runs=2)


@pytest.fixture(scope="module")
def own(study: StudyFolder, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is recorded: the study's full fine-tuning again, as a stranger's transformers model."""
    run = by_method(study)["full_ft"]
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_merged(study.run_path(run.run_id), folder)
    gauge = clipdrift.Gauge.of(SPEC, cache_dir=cache_dir)
    reading = gauge.read(AutoModel.from_pretrained(folder, dtype=torch.float32))
    return gauge, reading


def recorded(study: StudyFolder, own: Any, **changes: Any) -> RunRecord:
    gauge, reading = own
    values: dict[str, Any] = {
        "out": study.path,
        "method": "mine",
        "learning_rate": 1e-3,
        "seed": 7,
        "test_accuracy": 0.5,
        "test_n_images": 40,
        "history": {0: gauge.baseline, 1: reading},
        **changes,
    }
    return clipdrift.record(gauge, reading, **values)


def test_it_is_analysed_beside_the_study_and_said_to_be_trained_elsewhere(
    study: StudyFolder, own: Any
) -> None:
    run, mine = by_method(study)["full_ft"], recorded(study, own)
    assert mine.target == run.target == "land-cover"
    assert mine.result.drift == pytest.approx(run.result.drift, rel=1e-4, abs=1e-5)
    assert mine.result.transfer["world"] == run.result.transfer["world"]
    shared = {"backbone", "probe_set", "transfers"}
    assert mine.fingerprints == {name: run.fingerprints[name] for name in shared}
    assert mine.undefined["val_accuracy"] == "not given to `record`"

    analysis = clipdrift.analyze(study)
    assert {row["method"] for row in analysis["cells"]} == {"full_ft", "lora", "mine"}
    pairs = {(row["method_a"], row["method_b"]) for row in analysis["paired"]}
    assert ("full_ft", "mine") in pairs
    told = [row for row in analysis["warnings"] if row["kind"] == "trained_elsewhere"]
    assert [row["run_ids"] for row in told] == [[mine.run_id]]
    assert "nothing proves" in told[0]["detail"]
    assert "Trained elsewhere" in write_page(study).read_text(encoding="utf-8")
    assert audit_report(study) == []
    assert mine.run_id not in clipdrift.study_status(study)  # the study's own plan


def test_the_same_run_is_recorded_once(study: StudyFolder, own: Any) -> None:
    first = recorded(study, own, seed=8)
    path = study.record_path(first.run_id)
    before = path.read_bytes()
    recorded(study, own, seed=8)
    assert path.read_bytes() == before
    with pytest.raises(StudyFolderError, match="expected a run not recorded yet, got other"):
        recorded(study, own, seed=8, test_accuracy=0.6)
    assert path.read_bytes() == before


def test_values_that_no_run_can_have_are_told_at_once(
    study: StudyFolder, own: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecordError) as told:
        recorded(
            study,
            own,
            out=tmp_path / "new",
            method=" ",
            learning_rate=0,
            seed=-1,
            val_accuracy=61.2,
            test_n_images=True,
        )
    names = ["method", "learning_rate", "seed", "val_accuracy", "test_n_images"]
    assert [fault.where for fault in told.value.faults] == names
    assert not (tmp_path / "new").exists()
