"""Contrastive runs of either tower through one study and all that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import by_method, measured_study
from report_study import write_page
from small_models import mini_clip, pixels
from tiny_study import tiny
from transformers import AutoTokenizer, CLIPModel

from clipdrift.analysis.files import write_analysis
from clipdrift.backbone import load_backbone
from clipdrift.data.catalogue import templates_of
from clipdrift.data.prompts import class_prompts
from clipdrift.errors import MethodError
from clipdrift.finished.after import Asked, read_after_training
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_adapter, export_merged
from clipdrift.methods.adapted import reload
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import read_after
from clipdrift.report import audit_report
from clipdrift.spec import RunConfig

METHODS: list[dict[str, Any]] = [
    {"name": "flyp", "kind": "full_ft", "loss": "contrastive", "tower": "both"},
    {"name": "lora", "kind": "lora", "loss": "contrastive", "tower": "both"},
    {"name": "full_ft", "kind": "full_ft"},
]
TWO = ["a photo of a {}", "the {}"]


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    spec = tiny(
        targets=[{"name": "land-cover", "builtin": "land-cover", "templates": TWO}],
        methods=METHODS,
        schedule={"epochs": 1, "batch_size": 20},
        evaluation={"epoch_transfer_images": 20, "interpolation": [0.5]},
    )
    out = tmp_path_factory.mktemp("contrastive") / "study"
    return measured_study(spec, out, cache_dir, n_runs=len(METHODS))


@pytest.fixture(scope="module")
def records(study: StudyFolder) -> dict[str, RunRecord]:
    return by_method(study)


def test_records_hold_what_was_read_of_both_towers(records: dict[str, RunRecord]) -> None:
    for name in ("flyp", "lora"):
        record = records[name]
        assert record.history[0].drift["text_weight_drift_rel"] == 0
        assert (record.result.drift["text_weight_drift_rel"] or 0) > 0
        start = record.history[0].transfer["digits"]
        assert start.accuracy == start.baseline_accuracy
        assert record.result.extra["interpolation.0.5.test_accuracy"] is not None
        assert set(record.undefined) == set(records["full_ft"].undefined)
        assert ("prompts" in record.fingerprints, "head" in record.fingerprints) == (True, False)
    assert not any(key.startswith("text_") for key in records["full_ft"].result.drift)


def test_saved_runs_measure_the_same_again(
    study: StudyFolder, records: dict[str, RunRecord], cache_dir: Path
) -> None:
    for name in ("flyp", "lora"):
        compared = evaluate_run(study.run_path(records[name].run_id), cache_dir=cache_dir)
        assert [c for c in compared if not c.agrees] == []
        assert "drift.text_weight_drift_rel" in {c.name for c in compared}


@pytest.mark.parametrize("method", ["flyp", "lora"])
def test_an_export_is_a_clip_that_reads_classes_as_the_run_does(
    study: StudyFolder, records: dict[str, RunRecord], method: str, tmp_path: Path
) -> None:
    run = study.run_path(records[method].run_id)
    config = RunConfig.model_validate(records[method].config)
    export_merged(run, tmp_path / "out")
    whole = CLIPModel.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    names = [f"class {i}" for i in range(10)]
    prompts = class_prompts(names, templates_of(config.target))
    model = reload(mini_clip(), config.method, 10, run, prompts=prompts)
    assert model.text is not None
    with torch.no_grad():
        for group, own in zip(prompts, model.text.class_features(prompts), strict=True):
            tokens = tokenizer(group, padding=True, return_tensors="pt")
            found = whole.get_text_features(**tokens).pooler_output
            unit = (found / found.norm(dim=1, keepdim=True)).mean(dim=0)
            torch.testing.assert_close(unit / unit.norm(), own, rtol=1e-4, atol=1e-5)
        values = model.encoder.normalise(pixels())
        images = whole.get_image_features(pixel_values=values).pooler_output
        torch.testing.assert_close(images, model.encoder(pixels()), rtol=1e-4, atol=1e-5)
    assert model.texts is not None
    assert torch.equal(whole.logit_scale, model.texts.log_scale)
    assert not torch.equal(whole.logit_scale, mini_clip().model.logit_scale)
    assert load_backbone(type(config.backbone)(id=str(tmp_path / "out"))).width == 64


def test_an_adapter_on_both_towers_is_exported_merged(
    study: StudyFolder, records: dict[str, RunRecord], tmp_path: Path
) -> None:
    with pytest.raises(MethodError) as caught:
        export_adapter(study.run_path(records["lora"].run_id), tmp_path / "out")
    assert str(caught.value).endswith(
        "expected a run whose adapter lies on the vision tower, for --adapter, got tower: both. "
        "Use --merged."
    )
    assert not (tmp_path / "out").exists()


def test_scaled_movements_and_the_report(
    study: StudyFolder, records: dict[str, RunRecord], cache_dir: Path
) -> None:
    done = read_after_training(study, Asked({"scaled": [1.0], "lines": [1.0]}), cache_dir=cache_dir)
    assert (done.read, done.left_out) == (2 * len(METHODS), {})
    for path in sorted((study.path / "after").glob("*.json")):
        reading = read_after(path)
        was = records[reading.method].result
        assert reading.result.test_accuracy == was.test_accuracy
        assert reading.result.transfer["digits"].accuracy == was.transfer["digits"].accuracy
    analysis = write_analysis(study)
    pairs = [row for row in analysis["paired"] if "flyp" in (row["method_a"], row["method_b"])]
    assert pairs
    assert "pairs_dropped" not in {row["kind"] for row in analysis["warnings"]}
    write_page(study)
    assert audit_report(study) == []
