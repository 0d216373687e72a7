"""What a model's file says of its images is followed as by transformers, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from small_models import EMBEDDED
from tiny_study import tiny
from transformers import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from clipdrift.backbone import ImageEncoder, preprocessing
from clipdrift.backbone.clip import CLIP
from clipdrift.backbone.siglip import SIGLIP
from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square, to_square
from clipdrift.errors import BackboneError, ClipdriftError
from clipdrift.materials import load_materials
from clipdrift.spec.datasets import DatasetSpec
from clipdrift.spec.parts import BackboneSpec

S = 56
SQUARE = {"height": S, "width": S}
WRITTEN: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": S},
    "crop_size": SQUARE,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.3, 0.2, 0.1],
}
FOLLOWED: dict[str, dict[str, Any]] = {
    "as usual": {},
    "old numbers": {"size": S, "crop_size": S, "image_processor_type": ...},
    "both sides": {"size": SQUARE, "do_center_crop": True},
    "both sides, and cut": {"size": {"height": 64, "width": 64}},
    "both sides, uncut": {"size": SQUARE, "do_center_crop": False},
    "short side, and cut": {"size": {"shortest_edge": 64}},
    "crop alone": {"size": ...},
    "bilinear": {"resample": 2},
    "values in 0..2": {"rescale_factor": 1 / 127.5},
    "values in 0..255": {
        "do_rescale": False,
        "image_mean": [100.0, 120, 90],
        "image_std": [50] * 3,
    },
    "not normalised": {"do_normalize": False},
    "nulls": {"size": SQUARE, "do_center_crop": None, "do_normalize": None},
}


def written(folder: Path, changes: dict[str, Any]) -> Path:
    """The file with changes; `...` leaves a key out."""
    said = {key: value for key, value in (WRITTEN | changes).items() if value is not ...}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def shown(folder: Path, image: Image.Image, kind: Any = CLIP) -> NDArray[np.float32]:
    """[3, S, S] as the image encoder reads it."""
    own = preprocessing(folder, S, kind, BackboneSpec(id=str(folder)))
    pixels = to_square(image, own.size, own.interpolation, own.resize_mode, own.resized)
    encoder = ImageEncoder(torch.nn.Identity(), torch.nn.Identity(), own.mean, own.std)
    found: NDArray[np.float32] = encoder.normalise(torch.from_numpy(pixels.copy())[None])[0].numpy()
    return found


@pytest.mark.parametrize("photo", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("name", list(FOLLOWED))
def test_photographs_are_shown_as_the_models_own_processor_shows_them(
    name: str, photo: str, tmp_path: Path
) -> None:
    changes = FOLLOWED[name]
    image = Image.fromarray(load_sample_image(photo)).crop((0, 0, 500, 333))
    processor = CLIPImageProcessorPil.from_pretrained(written(tmp_path, changes))
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = shown(tmp_path, image)
    assert ours.shape == theirs.shape == (3, S, S)
    own = preprocessing(tmp_path, S, CLIP, BackboneSpec())
    level = 1 / 255 / min(own.std)
    assert np.abs(ours - theirs).max() <= 1.01 * level  # of rounding; another crop is off by many
    assert float(theirs.std()) > 20 * level


def test_a_siglip_that_leaves_keys_out_is_shown_whole(tmp_path: Path) -> None:
    own = {"size": SQUARE, "image_processor_type": "SiglipImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    image = Image.fromarray(load_sample_image("china.jpg"))
    processor = SiglipImageProcessorPil.from_pretrained(tmp_path)
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    assert np.abs(shown(tmp_path, image, SIGLIP) - theirs).max() <= 1.01 * 2 / 255


def test_without_a_file_images_are_shown_as_the_kind_of_model_shows_them(tmp_path: Path) -> None:
    image = Image.fromarray(load_sample_image("china.jpg"))
    for kind, processor in (
        (SIGLIP, SiglipImageProcessorPil(size=SQUARE)),
        (CLIP, CLIPImageProcessorPil(size={"shortest_edge": S}, crop_size=SQUARE)),
    ):
        theirs = processor(image, return_tensors="np")["pixel_values"][0]
        level = 1 / 255 / min(kind.std)
        assert np.abs(shown(tmp_path, image, kind) - theirs).max() <= 1.01 * level
        assert not preprocessing(tmp_path, S, kind, BackboneSpec()).own


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"do_resize": False}, "do_resize: expected true, got false"),
        ({"do_pad": True}, "do_pad: expected false, got true"),
        ({"resample": 0}, r"resample: expected 2 \(bilinear\) or 3 \(bicubic\), got 0"),
        ({"resample": [3]}, r"resample: expected 2 \(bilinear\) or 3 \(bicubic\), got \[3\]"),
        ({"resample": 3.0}, r"resample: expected .*, got 3\.0"),  # another filter in transformers
        ({"do_center_crop": False}, "do_center_crop: expected true, or size with height and width"),
        ({"size": {"shortest_edge": 40}}, "size: expected shortest_edge, .* of 56 or more, got"),
        ({"size": {"height": 56, "width": 70}}, "size: expected .* height and width alike"),
        ({"size": {"longest_edge": 56}}, "size: expected shortest_edge"),
        ({"size": [56, 56]}, "size: expected shortest_edge"),
        ({"crop_size": 224}, "crop_size: expected height and width of 56, the model's, got 224"),
        ({"image_processor_type": "FlavaImageProcessor"}, "one of CLIP or SigLIP, got 'Flava"),
        ({"rescale_factor": 0}, "positive deviations"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=text):
        shown(written(tmp_path, changes), Image.new("RGB", (60, 60)))


def test_all_that_is_not_followed_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackboneError) as refused:
        shown(written(tmp_path, {"do_resize": False, "resample": 1}), Image.new("RGB", (60, 60)))
    assert len(refused.value.faults) == 2


def test_prepared_images_of_two_resizes_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for photo in ("china.jpg", "flower.jpg"):
            image = Image.fromarray(load_sample_image(photo)).resize((90, 70))
            image.save(tmp_path / "set" / name / f"{photo}.png")
    spec = DatasetSpec(name="set", folder=str(tmp_path / "set"))

    def pixels(resized: int | None) -> NDArray[np.uint8]:
        square = Square(S, "bicubic", "shortest", resized)
        part = prepare(spec, square, cache_dir=tmp_path / "cache")["train"]
        return np.asarray(part.pixels)

    assert np.array_equal(pixels(None), pixels(S))
    entries = list((tmp_path / "cache").glob("*/entry.json"))
    assert len(entries) == 2  # of train and test, as before there was a choice
    assert not np.array_equal(pixels(64), pixels(S))


def test_a_bilinear_backbone_is_not_shown_bicubic_images_unsaid(tmp_path: Path) -> None:
    folder = shutil.copytree(EMBEDDED, tmp_path / "clip")
    own = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(own | {"resample": 2}))
    named = {"backbone": str(folder)}
    with pytest.raises(ClipdriftError, match="Write interpolation: bilinear into the study"):
        load_materials(tiny(**named), cache_dir=tmp_path / "cache")
    said = tiny(**named, interpolation="bilinear")
    assert load_materials(said, cache_dir=tmp_path / "cache").backbone.interpolation == "bilinear"
