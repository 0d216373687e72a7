"""Exported models, loaded by transformers and peft without any code of ours."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from small_models import EMBEDDED, METHODS, assert_same_features, mini_clip, pixels
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

import clipdrift
from clipdrift.cli import main
from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES
from clipdrift.errors import AdapterInactiveError, MethodError, RecordError, StudyFolderError
from clipdrift.finished.export import export_adapter, export_merged
from clipdrift.methods.adapted import reload
from clipdrift.records import StudyFolder, read_record
from clipdrift.run.files import clear_unfinished

MEASURED = ["full_ft", "lora", "last_blocks", "linear_probe"]
each_method = pytest.mark.parametrize("method", MEASURED)


def run_of(study: Path, method: str) -> Path:
    record = next(r for r in StudyFolder(study).records()[0] if r.method == method)
    return StudyFolder(study).run_path(record.run_id)


def pixel_values() -> Tensor:
    """Normalised here from the numbers in the checkpoint's own file."""
    own = json.loads((EMBEDDED / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(own[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    return (pixels().permute(0, 3, 1, 2) / 255 - mean) / std


def live(run: Path, method: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = reload(mini_clip(), METHODS[method], 10, run).encoder(pixels())
    return found


@each_method
def test_a_merged_clip_loads_in_transformers(
    finished_study: Path, tmp_path: Path, method: str
) -> None:
    run, out = run_of(finished_study, method), tmp_path / "models" / "merged"
    export_merged(run, out)
    model = CLIPModel.from_pretrained(out, local_files_only=True).eval()
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixel_values()).pooler_output
    assert_same_features(features, live(run, method))
    before = CLIPModel.from_pretrained(EMBEDDED, dtype=torch.float32).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(("text_", "logit_scale")):
            assert torch.equal(value, before[name]), name
    moved = any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert moved is (method != "linear_probe")
    assert AutoTokenizer.from_pretrained(out)("a circle") == AutoTokenizer.from_pretrained(
        EMBEDDED
    )("a circle")
    copied = (out / "preprocessor_config.json").read_bytes()
    assert copied == (EMBEDDED / "preprocessor_config.json").read_bytes()
    head, saved = load_file(out / "head.safetensors"), load_file(run / "head.safetensors")
    assert head.keys() == {"head.weight", "head.bias"}
    assert all(torch.equal(value, saved[name]) for name, value in head.items())
    assert sorted(p.name for p in out.parent.iterdir()) == ["merged"]


def test_an_adapter_loads_in_peft(finished_study: Path, tmp_path: Path) -> None:
    run, out = run_of(finished_study, "lora"), tmp_path / "adapter"
    export_adapter(run, out)
    model = CLIPModel.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    tower = peft.PeftModel.from_pretrained(model.vision_model, out).eval()
    beside = load_file(out / "head.safetensors")
    with torch.no_grad():
        pooled = tower(pixel_values=pixel_values()).pooler_output
        features = pooled @ beside["projection.weight"].T
        assert_same_features(features, live(run, "lora"))
        with tower.disable_adapter():
            plain = tower(pixel_values=pixel_values()).pooler_output
    assert not torch.allclose(pooled, plain, rtol=1e-3)
    origin = json.loads((out / "clipdrift.json").read_text())
    assert origin["run_id"] == run.name
    assert origin["backbone_sha256"] == mini_clip().sha256


def test_the_hub_reads_what_it_reached_in_the_head_of_its_card(
    finished_study: Path, tmp_path: Path
) -> None:
    run, out = run_of(finished_study, "lora"), tmp_path / "model"
    export_merged(run, out)
    data = ModelCard.load(out / "README.md").data
    head = data.to_dict()
    told_of = (head["library_name"], head["pipeline_tag"], head.get("base_model"))
    assert told_of == ("transformers", "image-classification", None)
    result = read_record(run / "record.json").result
    told = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert told["land-cover", "accuracy"] == pytest.approx(result.test_accuracy, abs=1e-4)
    for name, reading in result.transfer.items():
        assert told[name, "accuracy"] == pytest.approx(reading.accuracy, abs=1e-4)
        assert told.get((name, "retention")) == pytest.approx(reading.retention_pct, abs=1e-4)
    assert "weight_drift_rel" in {metric for _, metric in told}
    export_merged(run, tmp_path / "half", alpha=0.5)
    assert ModelCard.load(tmp_path / "half" / "README.md").data.eval_results is None


def snippet(folder: Path) -> str:
    """The lines that the README of an export has for classifying."""
    found: str = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    return found


@pytest.mark.parametrize(
    ("method", "export"), [("full_ft", export_merged), ("lora", export_adapter)]
)
def test_the_readme_of_an_export_classifies_as_the_run(
    finished_study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    export: Callable[[Path, Path], None],
) -> None:
    """By transformers' own pipeline, with names; the head is made to tell noise apart."""
    run = run_of(finished_study, method)
    export(run, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    seen = pixels(4).numpy()
    Image.fromarray(seen[0]).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(snippet(tmp_path / "out"), names)
    model = reload(mini_clip(), METHODS[method], 10, run)
    with torch.no_grad():
        expected = model(torch.from_numpy(seen)).softmax(dim=1)
    classes = json.loads((finished_study / "runs" / run.name / "classes.json").read_text())
    assert classes == {"classes": list(LAND_COVER_CLASSES), "templates": ["a photo of a {}"]}
    assert names["model"].config.label2id["river"] == classes["classes"].index("river")
    for image, row in zip(seen, expected, strict=True):
        found = names["classify"](Image.fromarray(image), top_k=10)
        order = row.argsort(descending=True).tolist()
        assert [one["label"] for one in found] == [classes["classes"][i] for i in order]
        scores = [one["score"] for one in found]
        assert scores == pytest.approx(row[order].tolist(), abs=1e-4)
    for number, image in enumerate(seen):
        Image.fromarray(image).save(f"{number}.png")
    for given in (run, tmp_path / "out"):
        told = list(clipdrift.predict(given, ["[0-3].png"], top=10, device="cpu"))
        assert [one.file for one in told] == [f"{number}.png" for number in range(4)]
        for one, row in zip(told, expected, strict=True):
            assert (one.label, one.score) == one.top[0]
            assert [name for name, _ in one.top] == [
                classes["classes"][i] for i in row.argsort(descending=True).tolist()
            ]
            assert dict(one.top) == pytest.approx(
                dict(zip(classes["classes"], row.tolist(), strict=True)), abs=1e-5
            )


def test_images_that_nobody_labelled_get_names(
    finished_study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, seen = run_of(finished_study, "lora"), pixels(3).numpy()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "=deep").mkdir(parents=True)
    Image.fromarray(seen[0]).save("photos/a.png")
    Image.fromarray(seen[1]).save("photos/=deep/b.png")
    (tmp_path / "photos" / "c.png").write_bytes(b"x")
    Image.fromarray(seen[2]).save("d.png")
    rows = [{"bytes": (tmp_path / "d.png").read_bytes(), "path": "d.png"}]
    pq.write_table(pa.table({"image": rows}), "rows.parquet")

    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["clipdrift", "predict", str(run), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(str(ended.value.code))

    assert command("photos", "rows.parquet", "--csv", "out.csv", "--top", "2") == 1
    assert "1 of 4 images cannot be read" in capsys.readouterr().err
    told = list(csv.DictReader((tmp_path / "out.csv").open()))
    with torch.no_grad():
        model = reload(mini_clip(), METHODS["lora"], 10, run)
        expected = model(torch.from_numpy(seen)).softmax(dim=1)
    files = ["photos/a.png", "photos/c.png", "photos/=deep/b.png", "rows.parquet row 0 d.png"]
    assert [row["file"] for row in told] == files
    assert told[1]["label"] == ""
    assert told[1]["reason"] == "not an image of a known format"
    for row, scores in zip([told[0], *told[2:]], expected, strict=True):
        best, at = scores.topk(2)
        assert [row["label"], row["label_2"]] == [LAND_COVER_CLASSES[i] for i in at.tolist()]
        assert [float(row["score"]), float(row["score_2"])] == pytest.approx(best.tolist())
    assert command("photos/c.png", "--csv", "none.csv") == 1
    (unread,) = csv.DictReader((tmp_path / "none.csv").open())
    assert (unread["label"], unread["reason"]) == ("", "not an image of a known format")
    assert command("photos/a.png", "--csv", "out.csv") == 2
    assert command("gone", "x*.png", "photos/a.png") == 2
    said = capsys.readouterr().err
    assert all(f"{name}: expected images: " in said for name in ("gone", "x*.png"))


def test_an_edited_adapter_is_told_by_its_hash(finished_study: Path, tmp_path: Path) -> None:
    """Not laid at the door of the versions of peft and transformers."""
    run = shutil.copytree(run_of(finished_study, "lora"), tmp_path / "run")
    path = run / "adapter" / "adapter_config.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "lora_alpha": 2 * body["lora_alpha"]}))
    was = json.loads((run / "record.json").read_text())["files"]["adapter/adapter_config.json"]
    with pytest.raises(RecordError, match=f"adapter_config.json: .* with SHA-256 {was}, as recor"):
        export_adapter(run, tmp_path / "out")
    path.unlink()
    with pytest.raises(RecordError, match="as recorded, got nothing there"):
        export_adapter(run, tmp_path / "out")


def test_a_study_lists_its_runs(
    finished_study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clipdrift", "export-model", str(finished_study)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    records = StudyFolder(finished_study).records()[0]
    for record in records:
        line = next(line for line in said.out.splitlines() if record.run_id in line)
        assert f"{100 * record.result.test_accuracy:.2f}" in line
    assert "expected one run, got a study with 6 runs. Name one, such as" in said.err
    run = run_of(finished_study, "lora")
    monkeypatch.setattr(sys, "argv", ["clipdrift", "export-model", str(run)])
    with pytest.raises(SystemExit):
        main()
    assert "--out: expected a new folder for the model, got none" in capsys.readouterr().err


def test_nothing_is_overwritten(finished_study: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    run = run_of(finished_study, "lora")
    with pytest.raises(StudyFolderError, match="expected a new folder, got one with files in it"):
        export_merged(run, tmp_path)
    with pytest.raises(StudyFolderError, match="expected a new folder, got a file"):
        export_adapter(run, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    export_adapter(run, tmp_path / "empty")
    assert (tmp_path / "empty" / "adapter_config.json").is_file()


def test_what_else_lies_in_the_backbones_folder_is_not_published(
    finished_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(EMBEDDED, tmp_path / "base")
    (base / "notes.txt").write_text("mine")
    monkeypatch.setattr("clipdrift.finished.export.backbone_folder", lambda _: base)
    export_merged(run_of(finished_study, "full_ft"), tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert not (tmp_path / "out" / "notes.txt").exists()
    (base / "preprocessor_config.json").unlink()  # then it is written as it was read
    export_merged(run_of(finished_study, "full_ft"), tmp_path / "unsaid")
    photo = Image.fromarray(load_sample_image("china.jpg"))
    shown = [
        AutoImageProcessor.from_pretrained(folder)(photo, return_tensors="pt").pixel_values
        for folder in (EMBEDDED, tmp_path / "unsaid")
    ]
    assert torch.equal(*shown)


def test_a_link_out_of_a_runs_folder_is_refused(finished_study: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_of(finished_study, "lora"), tmp_path / "run")
    (tmp_path / "key").write_text("private")
    (run / "adapter" / "notes.txt").symlink_to(tmp_path / "key")
    with pytest.raises(StudyFolderError, match=r"notes.txt: .* got a link out of it"):
        export_adapter(run, tmp_path / "out")
    with pytest.raises(StudyFolderError, match="got a link out of it"):
        clear_unfinished(run)  # before it is measured: a run would write through it
    (run / "adapter" / "notes.txt").unlink()
    (run / "adapter" / "mine.txt").write_text("mine")
    export_adapter(run, tmp_path / "out")
    assert not (tmp_path / "out" / "mine.txt").exists()


def test_full_fine_tuning_has_no_adapter(finished_study: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"\(lora, peft\) for --adapter, got full_ft"):
        export_adapter(run_of(finished_study, "full_ft"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="expected a valid run record"):
        export_merged(tmp_path, tmp_path / "out")


def test_an_export_that_reads_back_otherwise_is_not_left_behind(
    finished_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peft that drops the factors on loading: the published bug, planted in the library."""
    original = peft.PeftModel.from_pretrained

    def drops(tower: torch.nn.Module, folder: Path) -> torch.nn.Module:
        path = folder / "adapter_model.safetensors"
        save_file({k: torch.zeros_like(v) for k, v in load_file(path).items()}, path)
        wrapped: torch.nn.Module = original(tower, folder)
        return wrapped

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", drops)
    with pytest.raises(AdapterInactiveError, match="a relative difference of"):
        export_adapter(run_of(finished_study, "lora"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
