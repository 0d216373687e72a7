"""A study of a SigLIP without a CLS token, from plan to report, and its models out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from command_process import exit_code_here
from in_process import measured_study
from report_study import write_page
from small_models import pixels
from small_siglip import BLOCKS, WIDTH, write_random_siglip
from transformers import AutoModel

from clipdrift.analysis.files import write_analysis
from clipdrift.backbone import load_backbone
from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.checkpoint.measure import evaluate_checkpoint
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_adapter, export_merged
from clipdrift.methods.adapted import reload
from clipdrift.reading.model import not_read
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report import audit_report
from clipdrift.spec import RunConfig, StudySpec
from clipdrift.spec.parts import BackboneSpec

METHODS = {"full_ft", "lora", "last_blocks", "linear_probe"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_siglip(tmp_path_factory.mktemp("models") / "random-siglip")


@pytest.fixture(scope="module")
def spec(model_folder: Path) -> StudySpec:
    reference = {"role": "reference", "learning_rates": [1e-2]}
    return StudySpec.model_validate(
        {
            "name": "siglip",
            "backbone": {"id": str(model_folder)},
            "targets": [{"name": "land-cover", "builtin": "land-cover"}],
            "transfers": [{"name": "digits", "builtin": "digits", "n_images": 40}],
            "methods": [
                "full_ft",
                "lora",
                {"kind": "last_blocks", **reference},
                {"kind": "linear_probe", **reference},
            ],
            "learning_rates": [1e-2],
            "seeds": [7, 11],
            "schedule": {"epochs": 1, "batch_size": 16},
            "splits": {"train_per_class": 4, "val_per_class": 2, "test_per_class": 4},
            "probe": {"per_class": 1},
            "precision": "float32",
            "evaluation": {"epoch_transfer_images": 20, "interpolation": [0.5]},
        }
    )


@pytest.fixture(scope="module")
def study(spec: StudySpec, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("siglip") / "study"
    return measured_study(spec, out, cache_dir, n_runs=8).path


def records(study: Path) -> list[RunRecord]:
    found, faults = StudyFolder(study).records()
    assert faults == []
    return found


def run_of(study: Path, method: str) -> Path:
    record = next(r for r in records(study) if r.method == method)
    return StudyFolder(study).run_path(record.run_id)


def test_every_run_reads_what_the_tower_allows_and_says_why_not_the_rest(
    study: Path, model_folder: Path
) -> None:
    assert {record.method for record in records(study)} == METHODS
    reasons = not_read(load_backbone(BackboneSpec(id=str(model_folder))))
    for record in records(study):
        assert record.undefined.items() >= reasons.items()
        result = record.result
        assert result.drift["cka_mean"] is None
        assert result.levels["cls_entropy_nats"] is None
        assert result.levels_per_block["cls_entropy_nats"] == [None] * BLOCKS
        assert result.levels["patch_entropy_bits"] is not None
        assert result.drift["weight_drift_rel"] is not None
        still = record.method == "linear_probe"
        assert (result.drift["embedding_drift"] == 0) is still
        assert (result.drift["weight_drift_rel"] == 0) is still
        assert result.transfer["digits"].accuracy is not None
        assert record.history[0].drift["patch_entropy_pct"] == 0
        path = StudyFolder(study).run_path(record.run_id)
        assert not (path / "attention").exists()
        names = pq.read_schema(path / "probe_images.parquet").names
        assert "patch_entropy_bits" in names
        assert "cls_entropy_nats" not in names


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_a_saved_run_measures_the_same_again(study: Path, cache_dir: Path, method: str) -> None:
    compared = evaluate_run(run_of(study, method), cache_dir=cache_dir)
    assert len(compared) > 20
    assert [row.name for row in compared if not row.agrees] == []


def test_analysis_and_report_survive_what_is_null(study: Path) -> None:
    folder = StudyFolder(study)
    analysis = write_analysis(folder)
    cells = [r for r in analysis["cells"] if r["metric"] == "drift.cka_mean"]
    assert cells
    assert all(row["mean"] is None and row["reason"] for row in cells)
    page = write_page(folder).read_text()
    assert "the vision tower has no CLS token: there are no CLS activations to compare" in page
    assert "NaN" not in page.split("<script")[0]
    assert audit_report(folder) == []


def test_check_says_what_is_not_read(
    study: Path,
    cache_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("check", study / "study.yaml", "--cache", cache_dir)
    assert exit_code_here(*words) == 0
    out = capsys.readouterr().out
    assert (
        "not read (the vision tower has no CLS token: there are no CLS activations to compare): "
        "drift.cka_mean, drift.cka_last" in out
    )
    assert "not read (the model has no visual projection): drift.projection_drift_rel" in out
    assert exit_code_here(*words, "--json") == 0
    assert "attention_pictures" in json.loads(capsys.readouterr().out)["not_read"]


@pytest.mark.parametrize("command", ["check", "plan"])
def test_what_needs_a_cls_token_is_refused_before_anything_is_trained(
    command: str,
    spec: StudySpec,
    cache_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    floor = {"kind": "entropy_floor", "weight": 1.0}
    methods = [{"kind": "lora", "penalties": [floor]}, "vpt", "full_ft"]
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**spec.model_dump(mode="json"), "methods": methods}))
    assert exit_code_here(command, path, "--cache", cache_dir) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "method lora penalties entropy_floor: expected a backbone with a CLS token" in told
    assert "method vpt: expected a backbone with a CLS token, which reads the prompts" in told
    assert "Traceback" not in told


def embeddings(run: Path, model_folder: Path) -> torch.Tensor:
    record = RunRecord.model_validate_json((run / "record.json").read_text())
    method = RunConfig.model_validate(record.config).method
    model = reload(load_backbone(BackboneSpec(id=str(model_folder))), method, 10, run)
    with torch.no_grad():
        found: torch.Tensor = model.encoder(pixels())
    return found


def by_transformers(model: Any) -> torch.Tensor:
    values = (pixels().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        found: torch.Tensor = model(pixel_values=values).pooler_output
    return found


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_an_exported_model_loads_in_transformers_and_evaluates_as_the_run(
    study: Path, spec: StudySpec, model_folder: Path, cache_dir: Path, tmp_path: Path, method: str
) -> None:
    run, out = run_of(study, method), tmp_path / "merged"
    export_merged(run, out)
    model = AutoModel.from_pretrained(out, local_files_only=True).eval()
    assert type(model).__name__ == "SiglipModel"
    found = by_transformers(model.vision_model)
    torch.testing.assert_close(found, embeddings(run, model_folder), rtol=1e-4, atol=1e-5)
    assert (out / "spiece.model").read_bytes() == (model_folder / "spiece.model").read_bytes()
    evaluation = evaluate_checkpoint(out, spec, cache_dir=cache_dir)
    assert evaluation.sound, evaluation.findings
    said = {finding.check: finding.text for finding in evaluation.findings}
    assert said["kind"] == "SigLIP in transformers format, safetensors"
    assert said["projection"] == "none: SigLIP has none"
    record = RunRecord.model_validate_json((run / "record.json").read_text())
    was = record.result.transfer["digits"].accuracy
    assert evaluation.transfers["digits"].accuracy == was
    now = evaluation.drift["land-cover"].drift
    assert now.keys() == record.result.drift.keys()
    for name, value in record.result.drift.items():
        # Merged and live paths round apart; drift is a small difference of large sums.
        close = None if value is None else pytest.approx(value, rel=1e-3, abs=1e-4)
        assert now[name] == close, name


def test_an_exported_adapter_loads_in_peft(study: Path, model_folder: Path, tmp_path: Path) -> None:
    import peft

    run, out = run_of(study, "lora"), tmp_path / "adapter"
    export_adapter(run, out)
    tower = AutoModel.from_pretrained(model_folder).vision_model
    found = by_transformers(peft.PeftModel.from_pretrained(tower, out).eval())
    assert found.shape == (6, WIDTH)
    torch.testing.assert_close(found, embeddings(run, model_folder), rtol=1e-4, atol=1e-5)
    checkpoint = load_checkpoint(out, load_backbone(BackboneSpec(id=str(model_folder))))
    statuses = {finding.check: finding.status for finding in checkpoint.findings}
    assert "wrong" not in statuses.values(), checkpoint.findings
    assert (statuses["adapters active"], statuses["live = merged"]) == ("ok", "ok")
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.encoder(pixels()), found, rtol=1e-4, atol=1e-5)
