"""The readings of the untouched backbone: right, and the same after a round trip to disk."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import adapted, land_cover, mini_clip, perturb
from torch import Tensor

from clipdrift.data.drawn.world import WORLD_CLASSES, render_world
from clipdrift.data.images import Images
from clipdrift.probes.capture import ProbeReading, read_probe
from clipdrift.reading.baseline import (
    TransferBaseline,
    load_reading,
    load_transfer,
    measure_transfer,
    probe,
    save_reading,
    save_transfer,
    score,
)
from clipdrift.reading.screening import Predictor
from clipdrift.reading.sealed import save_sealed
from clipdrift.records.correct import Correct

PROMPTS = [[f"a photo of a {name}", name] for name in WORLD_CLASSES[:20]]


def world(n: int) -> Images:
    """New images of twenty classes that the embedded backbone knows, every fourth label wrong."""
    labels = np.arange(n) % 20
    wrong = np.arange(n) % 4 == 0
    drawn = render_world(labels, seed=77_000_002)
    return Images(drawn, np.arange(n), np.where(wrong, (labels + 1) % 20, labels))


@pytest.fixture(scope="module")
def reading() -> ProbeReading:
    return probe(mini_clip().encoder(), land_cover(12))


def right_by_hand(features: Tensor, text: Tensor, labels: np.ndarray) -> list[bool]:
    """argmax of cosines in float64, one image at a time."""
    right = []
    for image, label in zip(features.double().numpy(), labels, strict=True):
        cosines = [image @ t / np.linalg.norm(image) / np.linalg.norm(t) for t in text.numpy()]
        right.append(bool(np.argmax(cosines) == label))
    return right


def some(n: int = 3) -> Correct:
    return Correct.of(np.arange(n) % 2 == 0)


@pytest.mark.parametrize("batch_size", [7, 60])
def test_a_score_is_the_share_of_largest_cosines(batch_size: int) -> None:
    images, text = world(60), mini_clip().text_features(PROMPTS)
    scores = {}
    models = {"baseline": adapted("lora"), "adapted": perturb(adapted("lora"), 0.3)}
    for name, model in models.items():
        with torch.no_grad():
            features = model.encoder.eval()(torch.from_numpy(images.pixels))
        scores[name] = score(model.encoder, images, text, Predictor(batch_size))
        assert scores[name].hits.tolist() == right_by_hand(features, text, images.labels)
    assert scores["baseline"] != scores["adapted"]  # the live encoder is read, not the backbone
    assert 0.6 < scores["baseline"].accuracy < 1


def test_a_score_follows_the_order_of_the_view() -> None:
    images, text = world(60), mini_clip().text_features(PROMPTS)
    shuffled = images.select(np.random.default_rng(0).permutation(60))
    encoder = mini_clip().encoder()
    before = score(encoder, images, text, Predictor(16)).hits
    assert not before.all()
    order = np.random.default_rng(0).permutation(60)
    assert (score(encoder, shuffled, text, Predictor(16)).hits == before[order]).all()


def test_a_transfer_baseline_is_text_accuracy_and_epoch_part() -> None:
    images = world(60)
    part = images.select(np.arange(20))
    found = measure_transfer(mini_clip(), PROMPTS, images, part, batch_size=16)
    with torch.no_grad():
        features = mini_clip().encoder()(torch.from_numpy(images.pixels))
    assert torch.equal(found.text_features, mini_clip().text_features(PROMPTS))
    right = right_by_hand(features, found.text_features, images.labels)
    assert found.scored.hits.tolist() == right
    assert found.epoch_scored is not None
    assert found.epoch_scored.hits.tolist() == right[:20]
    without = measure_transfer(mini_clip(), PROMPTS, images, None, batch_size=16)
    assert (without.scored, without.epoch_scored) == (found.scored, None)


def test_a_probe_reads_the_images_in_view_through_the_live_encoder(reading: ProbeReading) -> None:
    images, model = land_cover(12), adapted("full_ft")
    values = model.encoder.normalise(torch.from_numpy(images.pixels))
    expected = read_probe(model.encoder.encode, model.encoder.tower, [values])
    for field in fields(ProbeReading):
        assert torch.equal(getattr(reading, field.name), getattr(expected, field.name)), field.name
    moved = probe(perturb(model).encoder, images)
    assert not torch.allclose(moved.cls_entropy_nats, reading.cls_entropy_nats)


def test_a_reading_comes_back_to_the_last_bit(reading: ProbeReading, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "probe.safetensors"
    save_reading(reading, path)
    back = load_reading(path)
    assert back is not None
    for field in fields(ProbeReading):
        a, b = getattr(back, field.name), getattr(reading, field.name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), field.name


@pytest.mark.parametrize("epoch_correct", [None, some(11)])
def test_a_transfer_comes_back_to_the_last_bit(
    epoch_correct: Correct | None, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "digits.safetensors"
    before = TransferBaseline(mini_clip().text_features(PROMPTS), some(30), epoch_correct)
    save_transfer(before, path)
    back = load_transfer(path)
    assert back is not None
    assert torch.equal(back.text_features, before.text_features)
    assert (back.scored, back.epoch_scored) == (some(30), epoch_correct)


@pytest.mark.parametrize("eighths", range(8))
def test_torn_files_are_not_used(reading: ProbeReading, tmp_path: Path, eighths: int) -> None:
    transfer = TransferBaseline(mini_clip().text_features(PROMPTS), some(), some())
    for name, save in (
        ("probe", lambda path: save_reading(reading, path)),
        ("transfer", lambda path: save_transfer(transfer, path)),
    ):
        path = tmp_path / name
        save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * eighths // 8])
        assert (load_reading if name == "probe" else load_transfer)(path) is None


def test_missing_files_are_not_used(tmp_path: Path) -> None:
    assert load_reading(tmp_path / "none") is None
    assert load_transfer(tmp_path / "none") is None
    assert load_reading(tmp_path) is None
    assert load_transfer(tmp_path) is None


def test_a_flipped_bit_is_seen(reading: ProbeReading, tmp_path: Path) -> None:
    save_reading(reading, tmp_path / "probe")
    save_transfer(TransferBaseline(torch.ones(4, 8), some(), None), tmp_path / "transfer")
    for name in ("probe", "transfer"):
        content = bytearray((tmp_path / name).read_bytes())
        content[-3] ^= 4
        (tmp_path / name).write_bytes(content)
        assert (load_reading if name == "probe" else load_transfer)(tmp_path / name) is None


def test_readings_with_other_fields_are_not_used(reading: ProbeReading, tmp_path: Path) -> None:
    path = tmp_path / "probe"
    save_reading(reading, path)
    tensors = load_file(path)
    save_sealed(path, {k: v for k, v in tensors.items() if k != "gini"}, {})
    assert load_reading(path) is None
    save_sealed(path, {**tensors, "a_new_signal": torch.ones(1)}, {})
    assert load_reading(path) is None


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"scored": {"n": 3, "bits": "oA=="}},
        {"accuracy": 0.5, "epoch_accuracy": None},  # of an earlier version
        {"scored": {"n": 30, "bits": "oA=="}, "epoch_scored": None},
        {"scored": 1, "epoch_scored": None},
    ],
)
def test_transfers_without_their_numbers_are_not_used(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "transfer"
    save_sealed(path, {"text_features": torch.eye(3)}, facts)
    assert load_transfer(path) is None
