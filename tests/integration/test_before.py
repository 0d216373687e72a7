"""The untouched model's readings of a real study: by hand, once a folder, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_process import command
from tiny_study import tiny

import clipdrift
from clipdrift.data.splits import balanced_subset
from clipdrift.errors import RecordError, SpecError
from clipdrift.finished import beforehand
from clipdrift.materials import load_materials
from clipdrift.methods.adapted import build
from clipdrift.records import StudyFolder
from clipdrift.records.beforehand import read_before
from clipdrift.spec import StudySpec, dump_spec


def silent(_: str) -> None:
    """Nothing is said."""


@pytest.fixture
def folder(finished_study: Path, tmp_path: Path) -> StudyFolder:
    """Study and records of a finished study, without its weights."""
    place = tmp_path / "results"
    for path in finished_study.rglob("*"):
        if path.name in ("study.yaml", "plan.json", "record.json"):
            own = place / path.relative_to(finished_study)
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, own)
    return StudyFolder(place)


def test_signals_of_a_batch_are_those_of_autograd_by_hand(cache_dir: Path) -> None:
    """Text head, no penalty: logits and losses written out, gradient of all that trains."""
    spec = tiny(methods=[{"kind": "last_blocks", "name": "last", "head_init": "text"}])
    found = beforehand.of_study(spec, cache_dir=cache_dir, device="cpu", say=silent)
    row = next(one for one in found.rows if one.transfer == "digits")
    materials = load_materials(spec, cache_dir=cache_dir)
    backbone, target = materials.backbone, materials.targets["land-cover"]
    features = backbone.text_features(target.prompts).clone()
    model = build(backbone, spec.methods[0], 10, seed=0, text_features=features).eval()
    weights = [p for p in model.encoder.parameters() if p.requires_grad]
    few = target.train.select(balanced_subset(target.train.labels, 20, 0))
    transfer = materials.transfers["digits"]
    shown = transfer.images.select(balanced_subset(transfer.images.labels, 60, 0))
    shown = shown.select(np.arange(0, 60, 3))
    texts = backbone.text_features(transfer.prompts).clone()

    def gradient(images: object, how: object) -> torch.Tensor:
        pixels = torch.from_numpy(images.take(slice(None)))
        chances = how(model.encoder(pixels)).log_softmax(dim=1)
        loss = -chances[torch.arange(len(pixels)), torch.from_numpy(images.labels)].mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]).double()

    own = gradient(few, model.head)
    scale = float(backbone.model.logit_scale.exp())
    other = gradient(shown, lambda e: scale * torch.nn.functional.normalize(e) @ texts.T)
    told = float(own @ other / own.norm() / other.norm())
    assert row.signals["alignment"] == pytest.approx(told, rel=1e-4)
    size = torch.cat([p.detach().flatten() for p in weights]).norm()
    assert row.signals["log_gradient"] == pytest.approx(
        float((own.norm() / size).log10()), rel=1e-4
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert row.signals["log_parameters"] == pytest.approx(np.log10(trained))
    assert row.steps == 9


def test_a_folder_is_read_once_and_anew_when_its_file_is_not_whole(
    folder: StudyFolder, cache_dir: Path
) -> None:
    said: list[str] = []
    first = beforehand.of_folder(folder, cache_dir=cache_dir, device="cpu", say=said.append)
    assert said[0] == f"{folder.path}: reading the untouched model"
    assert {row.method for row in first.rows} == {"full_ft", "lora"}
    again = beforehand.of_folder(folder, cache_dir=cache_dir, device="cpu", say=pytest.fail)
    assert again.rows == first.rows == read_before(folder.path / "before.json").rows
    text = (folder.path / "before.json").read_text()
    (folder.path / "before.json").write_text(text.replace('"steps": ', '"steps": 1', 1))
    mended = beforehand.of_folder(folder, cache_dir=cache_dir, device="cpu", say=silent)
    assert mended.rows == first.rows


def test_the_command_says_how_many_studies_are_missing_and_reads_nothing(
    folder: StudyFolder, small_spec: StudySpec, tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(dump_spec(small_spec))
    done = command("forecast", folder.path, "--before", study)
    assert done.returncode == 2
    assert "not enough studies: 1 (land-cover). Name folders of 4 more targets" in done.stderr
    assert not (folder.path / "before.json").exists()


def test_bad_input_is_refused(folder: StudyFolder, small_spec: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--transfer: expected transfer sets of the study"):
        clipdrift.forecast_before(small_spec, folder, transfers=["cifar1"])
    with pytest.raises(RecordError, match="not enough studies: 0"):
        clipdrift.forecast_before(small_spec)
    with pytest.raises(clipdrift.ClipdriftError, match="expected a study folder, got nothing"):
        clipdrift.forecast_before(small_spec, tmp_path / "none")
