"""Adapters of peft's through a whole study: matched, recorded, reloaded, exported, reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from in_process import measured_study
from small_models import EMBEDDED, assert_same_features, mini_clip, pixels
from tiny_study import tiny
from transformers import CLIPModel

from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.errors import MethodError
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_adapter, export_merged
from clipdrift.methods.adapted import NOT_PLAIN, reload
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec import RunConfig
from clipdrift.study.measure import run_study

METHODS: list[dict[str, Any]] = [
    {"name": "lora", "kind": "lora", "layers": {"last": 2}},
    {"name": "dora", "kind": "peft", "type": "LORA", "options": {"r": 4, "use_dora": True}},
    {"name": "ia3", "kind": "peft", "type": "ia3"},
    {
        "name": "pissa",
        "kind": "peft",
        "type": "lora",
        "options": {"r": 4, "init_lora_weights": "pissa"},
    },
    {"name": "lily", "kind": "peft", "type": "lily", "layers": {"first": 3}},
]
MERGED = ["lora", "dora", "ia3", "pissa"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("peft") / "study"
    spec = tiny(methods=METHODS, evaluation={"epoch_transfer_images": 20, "interpolation": [0.5]})
    return measured_study(spec, out, cache_dir, n_runs=len(METHODS)).path


def record_of(study: Path, method: str) -> RunRecord:
    return next(r for r in StudyFolder(study).records()[0] if r.method == method)


def run_of(study: Path, method: str) -> Path:
    return StudyFolder(study).run_path(record_of(study, method).run_id)


def live(study: Path, method: str) -> torch.Tensor:
    config = RunConfig.model_validate(record_of(study, method).config)
    with torch.no_grad():
        model = reload(mini_clip(), config.method, 10, run_of(study, method))
        found: torch.Tensor = model.encoder(pixels())
    return found


def test_they_are_matched_and_start_at_the_baseline(study: Path) -> None:
    records = [record_of(study, m["name"]) for m in METHODS]
    assert len({tuple(sorted(r.fingerprints.items())) for r in records}) == 1
    for record in records:
        start, end = record.history[0], record.history[-1]
        digits = start.transfer["digits"]  # at chance: nothing can be said to be kept
        assert (digits.accuracy, digits.retention_pct) == (digits.baseline_accuracy, None)
        assert (start.drift["embedding_drift"] or 0) < 1e-5 < (end.drift["embedding_drift"] or 0)


def test_what_has_no_plain_weights_is_null_with_a_reason(study: Path) -> None:
    record = record_of(study, "lily")
    nulls = {
        "drift.weight_drift_rel",
        "extra.interpolation.0.5.val_accuracy",
        "extra.interpolation.0.5.test_accuracy",
        "extra.interpolation.0.5.transfer.digits.accuracy",
    }
    assert {name for name, why in record.undefined.items() if why == NOT_PLAIN} == nulls
    assert record.result.drift["weight_drift_rel"] is None
    for method in MERGED:
        found = record_of(study, method).result
        assert (found.drift["weight_drift_rel"] or 0) > 0
        assert found.extra["interpolation.0.5.test_accuracy"] is not None


@pytest.mark.parametrize("method", [m["name"] for m in METHODS])
def test_a_saved_run_is_measured_again_to_the_same_numbers(
    study: Path, cache_dir: Path, method: str
) -> None:
    compared = evaluate_run(run_of(study, method), cache_dir=cache_dir, device="cpu")
    assert len(compared) > 10
    assert [row for row in compared if not row.agrees] == []


@pytest.mark.parametrize("method", MERGED)
def test_both_exports_load_without_any_code_of_ours(
    study: Path, method: str, tmp_path: Path
) -> None:
    expected = live(study, method)
    values = mini_clip().live_encoder().normalise(pixels())
    export_merged(run_of(study, method), tmp_path / "merged")
    model = CLIPModel.from_pretrained(tmp_path / "merged", local_files_only=True).eval()
    with torch.no_grad():
        merged = model.get_image_features(pixel_values=values).pooler_output
    assert_same_features(merged, expected)
    out = tmp_path / "adapter"
    export_adapter(run_of(study, method), out)
    tower = CLIPModel.from_pretrained(EMBEDDED, dtype=torch.float32).vision_model.eval()
    with torch.no_grad():
        pooled = peft.PeftModel.from_pretrained(tower, out).eval()(pixel_values=values)
    own = reload_projection(study, method)
    assert_same_features(own(pooled.pooler_output), expected)
    checkpoint = load_checkpoint(out, mini_clip())
    assert [f for f in checkpoint.findings if f.status == "wrong"] == []
    with torch.no_grad():
        assert_same_features(checkpoint.encoder(pixels()), expected)


def reload_projection(study: Path, method: str) -> torch.nn.Module:
    config = RunConfig.model_validate(record_of(study, method).config)
    return reload(mini_clip(), config.method, 10, run_of(study, method)).encoder.projection


def test_a_merged_export_of_what_cannot_be_merged_is_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=f"for --merged, got peft: {NOT_PLAIN}. Read the run"):
        export_merged(run_of(study, "lily"), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_does_not_fit_is_refused_before_anything_is_measured(
    cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny(methods=[{"kind": "peft", "type": "dora"}, {"kind": "lora", "rank": 65}])
    with pytest.raises(MethodError) as caught:
        run_study(spec, tmp_path / "out", cache_dir=cache_dir)
    assert [fault.where for fault in caught.value.faults] == [
        "method peft type",
        "method lora rank",
    ]
    assert list(tmp_path.iterdir()) == []
