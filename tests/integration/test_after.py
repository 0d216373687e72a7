"""Soups and scaled movements against files averaged by hand, and what stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import InProcess
from safetensors.torch import load_file
from small_models import mini_clip
from tiny_study import tiny
from transformers import CLIPVisionModelWithProjection
from typer.testing import CliRunner

from clipdrift.analysis.choose import choose
from clipdrift.analysis.questions.budget import Budget
from clipdrift.cli.app import app
from clipdrift.errors import RecordError, SpecError
from clipdrift.finished.after import Asked, read_after_training
from clipdrift.materials import load_materials
from clipdrift.methods.merged import Merged, soup
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import AfterReading, read_after, readings
from clipdrift.report import audit_report
from clipdrift.spec import content_hash
from clipdrift.study.measure import run_study

ASKED = Asked({"soup": [1.0, 0.0], "scaled": [0.0, 0.5, 1.0]})
SPEC = tiny(
    transfers=[{"name": "world", "builtin": "world", "n_images": 60}],  # above chance there
    methods=["full_ft", {"name": "lora", "kind": "lora"}],
    seeds=[7, 11],
    learning_rates=[3e-3],
    schedule={"epochs": 1, "batch_size": 20},
)


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    out = tmp_path_factory.mktemp("after") / "study"
    outcome = run_study(SPEC, out, executor=InProcess(), cache_dir=cache_dir)
    assert outcome.measured == 4
    before = {path: path.read_bytes() for path in out.glob("runs/*/*") if path.is_file()}
    done = read_after_training(StudyFolder(out), ASKED, cache_dir=cache_dir, device="cpu")
    assert (done.read, done.kept, done.left_out) == (2 * 2 + 4 * 3, 0, {})
    assert {path: path.read_bytes() for path in before} == before
    return StudyFolder(out)


def records_of(study: StudyFolder, method: str) -> list[RunRecord]:
    return sorted(
        (r for r in study.records()[0] if r.method == method), key=lambda record: record.seed
    )


def found(study: StudyFolder, method: str, kind: str, value: float) -> list[AfterReading]:
    every, faults = readings(study, study.records()[0])
    assert not faults
    return [
        one
        for one in every
        if (one.method, one.kind) == (method, kind) and value in (one.alpha, one.scale)
    ]


def averaged(files: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.mean([file[name].numpy() for file in files], axis=0))
        for name in files[0]
    }


def test_a_soup_is_the_mean_of_the_files(study: StudyFolder, cache_dir: Path) -> None:
    """Full fine-tuning by hand: files averaged with numpy, read by transformers' own model."""
    (reading,) = found(study, "full_ft", "soup", 1.0)
    folders = [study.run_path(record.run_id) for record in records_of(study, "full_ft")]
    towers = [load_file(folder / "vision.safetensors") for folder in folders]
    heads = [load_file(folder / "head.safetensors") for folder in folders]
    tower = {
        k: torch.from_numpy(np.mean([t[k].numpy() for t in towers], axis=0)) for k in towers[0]
    }
    head = {k: torch.from_numpy(np.mean([h[k].numpy() for h in heads], axis=0)) for k in heads[0]}
    backbone = mini_clip()
    before = backbone.vision_state()
    moved = sum(float(((tower[k] - before[k]) ** 2).sum()) for k in before) ** 0.5
    size = sum(float((before[k] ** 2).sum()) for k in before) ** 0.5
    assert reading.result.drift["weight_drift_rel"] == pytest.approx(moved / size, rel=1e-4)
    plain = CLIPVisionModelWithProjection(backbone.model.config.vision_config).eval()
    weights = {f"vision_model.{k}": v for k, v in tower.items()}
    projection = next(v for k, v in head.items() if k.startswith("projection."))
    plain.load_state_dict({**weights, "visual_projection.weight": projection}, strict=False)
    test = load_materials(SPEC, cache_dir=cache_dir).targets["land-cover"].test
    pixels = backbone.encoder().normalise(torch.from_numpy(test.take(slice(0, len(test)))))
    with torch.no_grad():
        embedded = plain(pixels).image_embeds
        logits = embedded @ head["head.weight"].T + head["head.bias"]
    right = (logits.argmax(dim=1).numpy() == test.labels).mean()
    assert reading.result.test_accuracy == pytest.approx(float(right))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(test.labels))
    assert reading.result.test_loss == pytest.approx(float(loss), rel=1e-4)
    assert reading.seeds == [7, 11]
    assert reading.head_inits == 2


def test_equal_weights_are_their_own_soup() -> None:
    one = Merged({"w": torch.randn(5)}, {"p": torch.randn(3)}, {"weight": torch.randn(2, 3)})
    mean = soup([one, one, one])
    for name in ("tower", "projection", "head"):
        for key, value in getattr(one, name).items():
            assert torch.equal(getattr(mean, name)[key], value)


@pytest.mark.parametrize("method", ["full_ft", "lora"])
def test_scale_one_is_the_run_and_scale_zero_its_projection_alone(
    study: StudyFolder, method: str
) -> None:
    for record, one, none, half in zip(
        records_of(study, method),
        *(found(study, method, "scaled", scale) for scale in (1.0, 0.0, 0.5)),
        strict=True,
    ):
        assert one.runs == none.runs == {record.run_id: record.identity}
        assert one.result.test_accuracy == record.result.test_accuracy
        assert one.result.transfer == record.result.transfer
        assert one.result.val_accuracy == record.result.val_accuracy
        drift = record.result.drift
        assert one.result.drift["weight_drift_rel"] == pytest.approx(drift["weight_drift_rel"])
        assert half.result.drift["weight_drift_rel"] == pytest.approx(
            (drift["weight_drift_rel"] or 0) / 2, rel=1e-4
        )
        assert none.result.drift["weight_drift_rel"] == 0.0
        assert half.result.drift["projection_drift_rel"] == drift["projection_drift_rel"]


def test_a_soup_at_alpha_zero_is_the_untouched_encoder(study: StudyFolder) -> None:
    (reading,) = found(study, "lora", "soup", 0.0)
    assert reading.result.transfer["world"].retention_pct == 100
    assert reading.result.drift["weight_drift_rel"] == 0.0
    assert reading.result.drift["projection_drift_rel"] == 0.0


@pytest.mark.parametrize(("kind", "missing"), [("soup", "alpha"), ("scaled", "scale")])
def test_a_reading_without_the_number_it_was_made_by_is_refused(
    study: StudyFolder, tmp_path: Path, kind: str, missing: str
) -> None:
    whole = json.loads(sorted((study.path / "after").glob(f"*{kind[:4]}*"))[0].read_text())
    assert whole["kind"] == kind
    body = {key: None if key == missing else v for key, v in whole.items() if key != "checksum"}
    path = tmp_path / "forged.json"
    path.write_text(json.dumps({**body, "checksum": content_hash(body)}))
    with pytest.raises(RecordError, match="expected a reading of version 1, got a damaged"):
        read_after(path)


def test_what_was_read_is_kept_and_what_is_damaged_is_read_again(
    study: StudyFolder, cache_dir: Path, tmp_path: Path
) -> None:
    copy = StudyFolder(tmp_path / "study")
    shutil.copytree(study.path, copy.path)
    path = sorted((copy.path / "after").glob("*soup*"))[0]
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "seeds": [1, 2]}))
    (fault,) = readings(copy, copy.records()[0])[1]
    assert str(fault) == (
        f"{path}: expected a reading of version 1, got a damaged or edited file. Run 'clipdrift "
        "after' again to redo it."
    )
    done = read_after_training(copy, ASKED, cache_dir=cache_dir, device="cpu")
    assert (done.read, done.kept) == (1, 15)
    assert json.loads(path.read_text())["result"] == whole["result"]
    # Without one of its runs a soup is out of date, and so are that run's own readings.
    gone = records_of(copy, "lora")[0]
    copy.record_path(gone.run_id).unlink()
    kept, _ = readings(copy, copy.records()[0])
    assert len(kept) == 16 - 2 - 3
    assert all(gone.run_id not in one.runs for one in kept)


def test_the_report_and_the_choice_know_them(study: StudyFolder, cache_dir: Path) -> None:
    done = CliRunner().invoke(
        app, ["after", str(study.path), "--scale", "0.5", "--cache", str(cache_dir)]
    )
    assert done.exit_code == 0, done.output
    assert "0 read, 4 already there" in done.output
    page = study.report_path.read_text(encoding="utf-8")
    assert "Weights made after training" in page
    assert audit_report(study) == []
    rows = choose(study, Budget(min_accuracy=0.0001)).rows
    names = {(row.method, row.weights) for row in rows}
    assert {("lora", "soup"), ("lora", "soup at alpha 0"), ("lora", "update times 0.5")} <= names
    (row,) = (r for r in rows if (r.method, r.weights) == ("full_ft", "soup"))
    (reading,) = found(study, "full_ft", "soup", 1.0)
    assert row.accuracy == reading.result.val_accuracy
    assert row.test_accuracy == reading.result.test_accuracy
    assert (row.sd_test_accuracy, row.p_meets, row.p_chosen) == (None, None, None)
    assert row.reason == "one soup: no SD and no probability"


def test_what_makes_no_sense_is_refused(study: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        read_after_training(study, Asked({"soup": [1.5], "scaled": [-1.0, 0.33333]}))
    told = [str(fault) for fault in refused.value.faults]
    ends = "of at most four decimals, got {}. Correct the value."
    assert told == [
        f"--alpha: expected distinct numbers from 0 to 1 {ends.format(1.5)}",
        f"--scale: expected distinct numbers from 0 to 10 {ends.format(-1)}",
        f"--scale: expected distinct numbers from 0 to 10 {ends.format(0.33333)}",
    ]
    empty = StudyFolder(tmp_path / "empty")
    empty.create()
    with pytest.raises(RecordError, match="expected finished runs with weights, got imported"):
        read_after_training(empty, Asked({"soup": [1.0]}))
