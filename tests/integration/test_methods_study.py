"""Objectives, and modules that are put into the tower, through one study and all that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import by_method, measured_study
from report_study import write_page
from safetensors.torch import load_file
from small_models import mini_clip, pixels
from tiny_study import tiny
from transformers import CLIPModel

from clipdrift.analysis.choose import choose
from clipdrift.analysis.files import write_analysis
from clipdrift.analysis.questions.budget import budget
from clipdrift.errors import MethodError
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_merged
from clipdrift.methods.adapted import NOT_PLAIN, reload
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report import audit_report
from clipdrift.spec import RunConfig

PENALTIES = ("l2_sp", "feature_distillation", "attention_preservation", "entropy_floor")
HELD = [{"kind": kind, "weight": 0.1} for kind in PENALTIES]
METHODS: list[dict[str, Any]] = [
    {"name": "held", "kind": "full_ft", "penalties": HELD},
    {"name": "bitfit", "kind": "bitfit"},
    {"name": "lp_ft", "kind": "lp_ft", "probe_epochs": 2, "probe_lr": 1e-2},
    {"name": "adapter", "kind": "adapter", "bottleneck": 4},
    {"name": "vpt", "kind": "vpt", "prompts": 2, "depth": "deep", "penalties": HELD[1:3]},
    {"name": "texts", "kind": "full_ft", "head": "frozen", "head_init": "text",
     "role": "reference"},
]  # fmt: skip
NAMES = [method["name"] for method in METHODS]
PLAIN = ["held", "bitfit", "lp_ft", "texts"]


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    spec = tiny(
        transfers=[{"name": "world", "builtin": "world", "n_images": 60}],  # above chance there
        methods=METHODS,
        schedule={"epochs": 1, "batch_size": 20},
        evaluation={"epoch_transfer_images": 20, "interpolation": [0.5]},
    )
    out = tmp_path_factory.mktemp("methods") / "study"
    return measured_study(spec, out, cache_dir, n_runs=len(METHODS))


@pytest.fixture(scope="module")
def records(study: StudyFolder) -> dict[str, RunRecord]:
    return by_method(study)


def test_matched_methods_share_every_factor_and_a_frozen_head_does_not(
    records: dict[str, RunRecord],
) -> None:
    marks = {name: record.fingerprints for name, record in records.items()}
    for name in NAMES[:-1]:
        assert marks[name] == marks["held"], name
    differing = {f for f, mark in marks["texts"].items() if mark != marks["held"][f]}
    assert differing == {"head", "head_init"}


def test_the_history_holds_what_each_penalty_came_to(records: dict[str, RunRecord]) -> None:
    for name, record in records.items():
        asked = {p["kind"] for m in METHODS if m["name"] == name for p in m.get("penalties", [])}
        before, after = record.history
        assert before.penalties == {}
        assert set(after.penalties) == asked
        assert all(value is not None and value > 0 for value in after.penalties.values())


def test_before_training_only_prompts_have_moved_the_encoder(
    records: dict[str, RunRecord],
) -> None:
    for name, record in records.items():
        before = record.history[0]
        moved = before.drift["embedding_drift"] != 0.0
        assert moved is (name == "vpt"), name
        if not moved:
            assert before.transfer["world"].delta_accuracy_pp == 0.0


def test_what_no_plain_weights_amount_to_is_null_with_its_reason(
    records: dict[str, RunRecord],
) -> None:
    for name, record in records.items():
        value = record.result.drift["weight_drift_rel"]
        half = record.result.extra["interpolation.0.5.test_accuracy"]
        if name in PLAIN:
            assert value is not None
            assert half is not None
        else:
            assert (value, half) == (None, None)
            assert record.undefined["drift.weight_drift_rel"] == NOT_PLAIN
            assert record.undefined["extra.interpolation.0.5.test_accuracy"] == NOT_PLAIN
        assert record.result.levels["rollout_entropy_bits"] is not None
        assert record.result.drift["cka_mean"] is not None
        picture = next((p for p in record.files if p.endswith(".safetensors")), None)
        assert picture is not None


@pytest.mark.parametrize("name", ["held", "lp_ft", "adapter", "vpt", "texts"])
def test_a_saved_run_measures_the_same_again(
    name: str, study: StudyFolder, records: dict[str, RunRecord], cache_dir: Path
) -> None:
    compared = evaluate_run(study.run_path(records[name].run_id), cache_dir=cache_dir)
    assert len(compared) > 20
    assert [row.name for row in compared if not row.agrees] == []


@pytest.mark.parametrize("name", ["bitfit", "texts"])
def test_a_run_of_plain_weights_is_a_model_of_transformers(
    name: str, study: StudyFolder, records: dict[str, RunRecord], tmp_path: Path
) -> None:
    run = study.run_path(records[name].run_id)
    export_merged(run, tmp_path / "model")
    exported = CLIPModel.from_pretrained(tmp_path / "model", local_files_only=True).eval()
    spec = RunConfig.model_validate(records[name].config).method
    model = reload(mini_clip(), spec, 10, run)
    values = model.encoder.normalise(pixels())
    with torch.no_grad():
        found = exported.get_image_features(pixel_values=values).pooler_output
        torch.testing.assert_close(found, model.encoder(pixels()), rtol=1e-4, atol=1e-5)
        head = load_file(tmp_path / "model" / "head.safetensors")
        if name == "texts":
            assert head.keys() == {"head.weight"}
            unit = torch.nn.functional.normalize(found, dim=-1)
            expected = unit @ head["head.weight"].T
            torch.testing.assert_close(expected, model(pixels()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["adapter", "vpt"])
def test_a_run_that_no_plain_model_can_hold_is_not_exported(
    name: str, study: StudyFolder, records: dict[str, RunRecord], tmp_path: Path
) -> None:
    with pytest.raises(MethodError, match=NOT_PLAIN):
        export_merged(study.run_path(records[name].run_id), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_every_method_flows_through_report_audit_and_choice(study: StudyFolder) -> None:
    analysis = write_analysis(study)
    assert {row["method"] for row in analysis["cells"]} == set(NAMES)
    page = write_page(study).read_text()
    assert all(name in page for name in NAMES)
    assert NOT_PLAIN in page
    assert audit_report(study) == []
    rows = choose(study, budget(min_accuracy=10)).rows
    assert {row.method for row in rows} == set(NAMES)
    assert "chosen" in {row.standing for row in rows}
