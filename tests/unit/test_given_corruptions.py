"""Damaged copies of the test part that a study names: checked, classified, identified, shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import METHODS, adapted, perturb
from small_study import study

from clipdrift.analysis.statistics.extras import corrupted, corruptions
from clipdrift.data.drawn.landcover import render_land_cover
from clipdrift.errors import ClipdriftError, SpecError
from clipdrift.materials import Materials, load_materials
from clipdrift.reading.baseline_files import ensure_baselines
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.post_hoc import read_post_hoc
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec, expand, load_spec

CLASSES = [f"class-{label}" for label in range(10)]


def write_images(folder: Path, per_class: int, seed: int, classes: list[str] = CLASSES) -> Path:
    """PNG files of drawn land cover in class folders."""
    labels = np.repeat(np.arange(len(classes)), per_class)
    for i, (label, image) in enumerate(
        zip(labels, render_land_cover(labels, seed=seed), strict=True)
    ):
        place = folder / classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    return folder


def spec_of(tmp_path: Path, **corrupted: object) -> StudySpec:
    part = {"name": "fog", "folder": str(tmp_path / "fog"), **corrupted}
    target = {"name": "land", "folder": str(tmp_path / "land"), "corrupted": [part]}
    return study(
        targets=[target],
        transfers=[{"name": "digits", "builtin": "digits", "n_images": 20}],
        splits={"val_per_class": 1},
        probe={"per_class": 1},
        evaluation={"epoch_transfer_images": 0},
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_images(tmp_path / "land", 6, seed=1)
    write_images(tmp_path / "fog", 3, seed=2)
    return tmp_path


def materials_of(spec: StudySpec, tmp_path: Path) -> Materials:
    return load_materials(spec, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_they_are_classified_with_the_adapted_head(written: Path) -> None:
    spec = spec_of(written)
    materials = materials_of(spec, written)
    folder = StudyFolder(written / "out")
    folder.create()
    ensure_baselines(spec, materials, folder, lambda text: None)
    gauge = Gauge.of_run(expand(spec, precision="float32")[0], materials, folder)
    model = perturb(adapted(METHODS["lora"]), 0.02)
    found = read_post_hoc(gauge, model, spec.evaluation, {}).numbers
    hits = 0
    for path in sorted((written / "fog").rglob("*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path)))[None]
        with torch.no_grad():
            hits += CLASSES[int(model(pixels).argmax())] == path.parent.name
    assert found == {"corruption.fog.accuracy": hits / 30}


def test_a_balanced_part_of_them_can_be_read(written: Path) -> None:
    images = materials_of(spec_of(written, n_images=20), written).targets["land"].corrupted["fog"]
    assert np.bincount(images.labels).tolist() == [2] * 10


def test_other_classes_than_those_of_the_target_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "land", 6, seed=1)
    write_images(tmp_path / "fog", 3, seed=2, classes=[*CLASSES[:9], "another"])
    with pytest.raises(ClipdriftError) as caught:
        materials_of(spec_of(tmp_path), tmp_path)
    assert "target land, corrupted fog: expected the classes of the target" in str(caught.value)


def test_names_are_distinct_and_paths_start_at_the_study_file(tmp_path: Path) -> None:
    one = "{name: fog, folder: fog}"
    text = f"""\
name: small
targets:
  - name: land
    folder: land
    corrupted: [{one}]
transfers: [digits]
methods: [lora]
learning_rates: [1e-4]
seeds: [7]
"""
    (tmp_path / "study.yaml").write_text(text)
    (target,) = load_spec(tmp_path / "study.yaml").targets
    assert target.corrupted[0].folder == str((tmp_path / "fog").resolve())
    (tmp_path / "study.yaml").write_text(text.replace(f"[{one}]", f"[{one}, {one}]"))
    with pytest.raises(SpecError, match=r"targets\.0\.corrupted: expected distinct values"):
        load_spec(tmp_path / "study.yaml")


@pytest.mark.slow
def test_where_they_lie_is_no_part_of_the_identity_but_what_they_are_is(written: Path) -> None:
    def identity(spec: StudySpec) -> str:
        content = materials_of(spec, written).content("land")
        return expand(spec, precision="float32")[0].identity(content)

    here = spec_of(written)
    moved = spec_of(written, folder=str(write_images(written / "moved", 3, seed=2)))
    other = spec_of(written, folder=str(write_images(written / "other", 3, seed=3)))
    assert identity(moved) == identity(here)
    assert identity(other) != identity(here)


def test_the_report_reads_them_beside_those_with_a_severity() -> None:
    names = ["extra.corruption.jpeg.3.accuracy", "extra.corruption.motion_blur.accuracy"]
    names += ["extra.corruption.jpeg.accuracy", "extra.corruption.jpeg.3.loss"]
    labels = ["jpeg", "jpeg 3", "motion blur"]
    assert [found.label for found in corruptions(names)] == labels
    found = corrupted(names[0])
    assert found is not None
    assert (found.corruption, found.severity) == ("jpeg", 3)
