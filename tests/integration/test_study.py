"""A study end to end: measured, resumed, changed, killed, on a folder that fails."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from in_process import InProcess
from PIL import Image
from report_study import write_page
from tiny_study import tiny
from worker_processes import workers_of

from clipdrift.analysis.files import write_analysis
from clipdrift.errors import RecordError, StudyFolderError
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_merged
from clipdrift.materials import load_materials
from clipdrift.records import StudyFolder, read_record
from clipdrift.spec import StudySpec
from clipdrift.study.measure import run_study
from clipdrift.study.status import study_status


def test_matched_runs_carry_equal_fingerprints(finished_study: Path) -> None:
    records, faults = StudyFolder(finished_study).records()
    assert not faults
    matched = [r for r in records if r.role == "matched"]
    assert {r.method for r in matched} == {"full_ft", "lora"}
    first = matched[0].fingerprints
    assert {"image_order", "head_init", "probe_set", "data_split", "transfers"} <= first.keys()
    for record in matched:
        assert record.fingerprints == first
    probe = next(r for r in records if r.method == "linear_probe")
    assert probe.fingerprints["projection"] != first["projection"]
    assert probe.fingerprints["head_init"] == first["head_init"]


def test_before_training_drift_is_exactly_zero_and_retention_whole(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        start = record.history[0]
        assert start.epoch == 0
        relative = {k: v for k, v in start.drift.items() if not k.startswith("cka")}
        assert set(relative.values()) == {0.0}, record.run_id
        assert start.drift["cka_mean"] == pytest.approx(1.0, abs=1e-12)
        assert start.transfer["world"].retention_pct == 100.0


def test_linear_probe_moves_nothing_but_its_head(finished_study: Path) -> None:
    record = next(r for r in StudyFolder(finished_study).records()[0] if r.method == "linear_probe")
    relative = {k: v for k, v in record.result.drift.items() if not k.startswith("cka")}
    assert set(relative.values()) == {0.0}
    assert record.result.transfer["world"].retention_pct == 100.0
    assert record.result.parameters_trained == 10 * 64 + 10


def test_training_moves_the_encoder_more_at_a_larger_rate(finished_study: Path) -> None:
    moved = {
        (r.method, r.learning_rate): r.result.drift["weight_drift_rel"]
        for r in StudyFolder(finished_study).records()[0]
    }
    for method in ("full_ft", "lora"):
        assert 0 < moved[method, 3e-4] < moved[method, 3e-3]


def test_selected_epoch_is_the_first_best_on_validation(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        accuracies = [e.val_accuracy for e in record.history if e.epoch]
        assert record.selected_epoch == 1 + int(np.argmax(accuracies))
        assert record.result.val_accuracy == max(accuracies)
        kept = record.history[record.selected_epoch]
        assert record.result.drift == kept.drift


def test_probe_table_averages_to_the_recorded_levels(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        table = pq.read_table(
            StudyFolder(finished_study).run_path(record.run_id) / "probe_images.parquet"
        ).to_pandas()
        assert len(table) == 30
        assert sorted(table["label"]) == sorted([*range(10)] * 3)
        for name in ("cls_entropy_nats", "erf95", "gini", "patch_entropy_bits"):
            assert table[name].mean() == pytest.approx(record.result.levels[name], rel=1e-6)
        now, before = table["gini"].mean(), table["gini_baseline"].mean()
        assert record.result.drift["gini_pct"] == pytest.approx(
            100 * (now - before) / before, rel=1e-3, abs=1e-4
        )


def test_interpolated_weights_run_from_the_baseline_to_the_result(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        result, extra = record.result, record.result.extra
        before = result.transfer["world"].baseline_accuracy
        assert extra["interpolation.0.transfer.world.accuracy"] == before
        assert extra["interpolation.0.transfer.world.retention_pct"] == 100
        now = result.transfer["world"]
        assert extra["interpolation.1.transfer.world.accuracy"] == now.accuracy
        assert extra["interpolation.1.transfer.world.retention_pct"] == now.retention_pct
        assert extra["interpolation.1.test_accuracy"] == result.test_accuracy
        assert extra["interpolation.1.val_accuracy"] == result.val_accuracy
        assert "interpolation.0.5.transfer.world.retention_pct" in extra
        still = len({extra[f"interpolation.{a}.test_accuracy"] for a in ("0", "0.5", "1")}) == 1
        assert still is (record.method == "linear_probe")


@torch.inference_mode()
def test_right_images_are_those_that_transformers_finds(
    finished_study: Path, small_spec: StudySpec, cache_dir: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = Path(str(files("clipdrift") / "assets" / "mini-clip"))
    clip = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    materials = load_materials(small_spec, cache_dir=cache_dir)
    (target,), (transfer,) = materials.targets.values(), materials.transfers.values()
    sets = {
        "target_zero_shot": (target.test, target.prompts),
        f"transfer.{transfer.name}": (transfer.images, transfer.prompts),
    }
    found, _ = StudyFolder(finished_study).records()
    for name, (images, prompts) in sets.items():
        values = torch.from_numpy(images.take(slice(None)).astype(np.float32) / 127.5 - 1)
        tokens = tokenizer([group[0] for group in prompts], padding=True, return_tensors="pt")
        logits = clip(pixel_values=values.permute(0, 3, 1, 2), **tokens).logits_per_image
        expected = logits.argmax(dim=1).numpy() == images.labels
        for record in found:
            was = record.result.correct[f"{name}.baseline_accuracy"].hits
            assert (was != expected).mean() < 0.005, name  # ties within rounding
    probes = [record for record in found if record.method == "linear_probe"]
    for record in probes:  # moves no image embedding
        correct = record.result.correct
        assert correct[f"{name}.accuracy"] == correct[f"{name}.baseline_accuracy"]
    for record in found:
        named = {key for key, value in record.result.accuracies() if value is not None}
        others = {key for key in named if "corruption" in key or key.endswith("retention_pct")}
        assert set(record.result.correct) == named - others
        assert record.result.test_chance == np.bincount(target.test.labels).max() / len(target.test)


def test_corrupted_parts_are_read_for_every_run(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        found = {k for k in record.result.extra if k.startswith("corruption.")}
        assert found == {"corruption.contrast.5.accuracy", "corruption.jpeg.5.accuracy"}
        assert all(0 <= record.result.extra[name] <= 1 for name in found)


def test_attention_pictures_show_five_tiles(finished_study: Path) -> None:
    folders = sorted((finished_study / "runs").glob("*/attention"))
    assert len(folders) == 6
    for folder in folders:
        pictures = sorted(folder.glob("*.png"))
        assert len(pictures) == 3
        with Image.open(pictures[0]) as picture:
            assert picture.size == (5 * 112 + 4 * 6, 112 + 16)


def test_saved_runs_measure_the_same_again(finished_study: Path, cache_dir: Path) -> None:
    one_of_each = {r.method: r for r in StudyFolder(finished_study).records()[0]}
    assert len(one_of_each) == 4
    for record in one_of_each.values():
        compared = evaluate_run(
            StudyFolder(finished_study).run_path(record.run_id), cache_dir=cache_dir
        )
        names = {row.name for row in compared}
        assert {"test_accuracy", "transfer.world.accuracy", "drift.cls_entropy_pct"} <= names
        assert "extra.interpolation.0.5.test_accuracy" in names
        assert {f"target_zero_shot.{when}accuracy" for when in ("", "baseline_")} <= names
        assert [row for row in compared if not row.agrees] == []


@pytest.mark.parametrize("name", ["vision.safetensors", "probe_images.parquet"])
def test_files_that_are_not_the_records_are_refused(
    name: str, finished_study: Path, cache_dir: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    shutil.copytree(finished_study, study)
    run = next((study / "runs").glob("*full_ft-lr0.003*"))
    path = run / name
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    was = read_record(run / "record.json").files[path.name]
    told = re.escape(
        f"{path}: expected a file as it was saved, with SHA-256 {was}, as recorded, "
        f"got {hashlib.sha256(content).hexdigest()}."
    )
    with pytest.raises(RecordError, match=told):
        evaluate_run(run, cache_dir=cache_dir)
    with pytest.raises(RecordError, match=told):
        export_merged(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    path.write_bytes(b"torn")
    with pytest.raises(
        RecordError, match=f"{re.escape(name)}: expected a file as it was saved, with SHA-256"
    ):
        evaluate_run(run, cache_dir=cache_dir)
    path.unlink()
    with pytest.raises(RecordError, match=r"as recorded, got nothing there\."):
        evaluate_run(run, cache_dir=cache_dir)
    path.write_bytes(content)
    record = read_record(run / "record.json")
    record.files.pop(name)
    (run / "record.json").write_text(record.to_json())
    with pytest.raises(RecordError, match=rf"{re.escape(name)}: .* SHA-256 none, as recorded"):
        evaluate_run(run, cache_dir=cache_dir)


def test_running_again_measures_nothing_and_removes_what_kills_left(
    finished_study: Path, small_spec: StudySpec, cache_dir: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_study.rglob("record.json")}
    left, of_another = finished_study / ".report.html.x1.tmp", finished_study / ".a.csv.x2.tmp"
    for path, hours in ((left, 2), (of_another, 0)):
        path.write_text("half")
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    outcome = run_study(small_spec, finished_study, cache_dir=cache_dir)
    assert (outcome.kept, outcome.measured) == (6, 0)
    assert {p: p.stat().st_mtime_ns for p in finished_study.rglob("record.json")} == before
    assert (left.exists(), of_another.exists()) == (False, True)
    of_another.unlink()


@pytest.fixture
def one_run(small_spec: StudySpec) -> StudySpec:
    return small_spec.model_copy(
        update={"methods": small_spec.methods[1:2], "learning_rates": [1e-3]}
    )


def test_a_torn_record_is_redone_and_a_changed_study_reuses_nothing(
    one_run: StudySpec, cache_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    first = run_study(one_run, out, cache_dir=cache_dir, executor=InProcess())
    assert first.measured == 1
    path = next(out.glob("runs/*/record.json"))
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert set(study_status(out).values()) == {"to do"}
    again = run_study(one_run, out, cache_dir=cache_dir, executor=InProcess())
    assert (again.kept, again.measured) == (0, 1)
    assert read_record(path).result == read_record(path).model_validate_json(whole).result

    shorter = one_run.schedule.model_copy(update={"epochs": 1})
    changed = run_study(
        one_run.model_copy(update={"schedule": shorter}),
        out,
        cache_dir=cache_dir,
        executor=InProcess(),
    )
    assert (changed.kept, changed.measured) == (0, 1)
    assert len(list(out.glob("runs/*/record.json"))) == 2
    assert len(StudyFolder(out).records()[0]) == 1  # the other belongs to the former study
    back = run_study(one_run, out, cache_dir=cache_dir, executor=InProcess())
    assert (back.kept, back.measured) == (1, 0)


def test_a_killed_worker_is_replaced_and_its_run_redone(cache_dir: Path, tmp_path: Path) -> None:
    out, killed, events = tmp_path / "study", [], []

    def kill_once(event: dict[str, object]) -> None:
        events.append(event["event"])
        if event["event"] == "epoch" and not killed:
            killed.extend(workers_of(out)[:1])
            os.kill(killed[0], signal.SIGKILL)

    outcome = run_study(tiny(), out, cache_dir=cache_dir, workers=1, on_event=kill_once)
    assert killed
    assert "retry" in events
    assert (outcome.measured, outcome.failed) == (1, {})


def test_diverged_runs_are_recorded_as_such(
    small_spec: StudySpec, cache_dir: Path, tmp_path: Path
) -> None:
    spec = small_spec.model_copy(
        update={"methods": small_spec.methods[:1], "learning_rates": [3e-4, 10.0]}
    )
    # Weight decay of a rate of 10 multiplies every weight by -10^4 a step: overflow in a few.
    schedule = spec.schedule.model_copy(update={"weight_decay": 1e3})
    outcome = run_study(
        spec.model_copy(update={"schedule": schedule}),
        tmp_path / "study",
        cache_dir=cache_dir,
        executor=InProcess(),
    )
    assert (outcome.measured, outcome.diverged, outcome.failed) == (1, 1, {})
    record = next(r for r in StudyFolder(tmp_path / "study").records()[0] if r.status == "diverged")
    assert record.reason is not None
    assert re.fullmatch(r"loss (not finite|above 1,000 nats) at step \d+", record.reason)
    assert record.result.test_accuracy is None

    folder = StudyFolder(tmp_path / "study")
    cells = write_analysis(folder)["cells"]
    assert {row["learning_rate"] for row in cells if row["metric"] == "test_accuracy"} == {3e-4}
    write_page(folder)
    assert f"diverged: {record.reason}" in folder.report_path.read_text(encoding="utf-8")


def test_output_folder_that_is_a_file(one_run: StudySpec, cache_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    out.write_text("mine")
    with pytest.raises(StudyFolderError, match="expected a folder for the results, got a file"):
        run_study(one_run, out, cache_dir=cache_dir)
    assert out.read_text() == "mine"


def test_records_are_plain_json_with_provenance(finished_study: Path) -> None:
    for path in finished_study.glob("runs/*/record.json"):
        body = json.loads(path.read_text())
        assert body["schema_version"] == 1
        assert body["provenance"]["packages"]["torch"] == torch.__version__
        assert len(body["provenance"]["data"]["backbone"]) == 64
        assert body["timing"]["peak_memory_bytes"] > 1e8
        for name in body["files"]:
            assert (path.parent / name).is_file()


def test_per_block_readings_average_to_the_means(finished_study: Path) -> None:
    for record in StudyFolder(finished_study).records()[0]:
        levels, blocks = record.result.levels, record.result.levels_per_block
        assert {"cls_entropy_nats", "erf95", "gini"} <= blocks.keys()
        for name, values in blocks.items():
            assert len(values) == 6
            assert levels[name] == pytest.approx(np.mean(values), rel=1e-12)
            assert levels[f"{name}_last"] == values[-1]
        assert record.result.drift["cka_mean"] == pytest.approx(
            np.mean(record.result.drift_per_block["cka"])
        )
        assert {"cls_entropy_pct", "gini_pct", "cka"} <= record.result.drift_per_block.keys()
