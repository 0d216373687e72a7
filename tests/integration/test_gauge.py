"""The gauge reads an outside model as a study reads its own, and refuses what it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from PIL import Image
from small_models import EMBEDDED, land_cover
from transformers import AutoModel

import clipdrift
from clipdrift.errors import ClipdriftError
from clipdrift.probes.representation import linear_cka
from clipdrift.reading.gauge import Gauge

CLASSES = ("AnnualCrop", "Forest", "Highway")


def clip() -> Any:
    return AutoModel.from_pretrained(EMBEDDED, dtype=torch.float32)


def pictures(n: int = 12) -> list[Image.Image]:
    return [Image.fromarray(one) for one in land_cover(n).pixels]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(pictures(30)):
        folder = root / CLASSES[number % 3]
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def gauge(photos: Path, cache_dir: Path) -> Gauge:
    world = {"builtin": "world", "n_images": 200}
    return Gauge(probe=photos, transfers={"world": world, "photos": photos}, cache_dir=cache_dir)


def tuned() -> Any:
    """A few steps of anyone's: LoRA in the vision tower, towards other embeddings."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=r".*vision_model.*(q_proj|v_proj|fc1)")
    model = peft.get_peft_model(clip(), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    values = torch.from_numpy(land_cover(12).pixels).permute(0, 3, 1, 2) / 127.5 - 1
    for _ in range(3):
        features = model.get_image_features(pixel_values=values).pooler_output
        loss = torch.nn.functional.cross_entropy(features, torch.arange(12) % 5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_untouched_model_keeps_all_and_moves_by_nothing(gauge: Gauge) -> None:
    before = gauge.baseline
    now = gauge.read(clip())
    assert now == before
    assert {value for value in now.drift.values() if value is not None} == {0.0, 1.0}  # CKA is 1
    assert now.transfer["world"].retention_pct == 100
    assert now.transfer["world"].accuracy > 0.9
    assert now.undefined == {} or all(now.undefined.values())


def test_an_adapted_model_is_read_as_transformers_and_numpy_read_it(gauge: Gauge) -> None:
    model = tuned()
    model.train()
    reading = gauge.read(model)
    assert model.training
    model.eval()
    transfer = gauge.transfers["world"]
    images = transfer.images
    prompts = [group[0] for group in transfer.prompts]
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(EMBEDDED)(prompts, padding=True, return_tensors="pt")

    def outputs(model: Any, pixels: np.ndarray) -> Any:
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            return model(pixel_values=values, **tokens, output_hidden_states=True)

    whole = images.take(slice(None))
    right = outputs(model, whole).logits_per_image.argmax(dim=1).numpy() == images.labels
    assert reading.transfer["world"].accuracy == pytest.approx(right.mean(), abs=0.006)
    assert reading.correct["transfer.world.accuracy"].n == 200
    probe = gauge.probe.take(slice(None))
    after, before = (outputs(one, probe) for one in (model, clip()))
    cosines = torch.nn.functional.cosine_similarity(after.image_embeds, before.image_embeds)
    assert reading.drift["embedding_drift"] == pytest.approx(1 - cosines.mean().item(), abs=1e-5)
    states = [one.vision_model_output.hidden_states[-1][:, 0] for one in (after, before)]
    assert reading.drift_per_block["cka"][-1] == pytest.approx(linear_cka(*states), abs=1e-4)
    frame = reading.to_frame()
    row = frame[(frame["name"] == "drift.embedding_drift") & frame["block"].isna()]
    assert row["value"].item() == reading.drift["embedding_drift"]
    n_blocks = len(clip().vision_model.encoder.layers)
    assert frame[frame["name"] == "drift.cka"]["block"].max() == n_blocks


def test_pictures_in_memory_are_a_probe_set(gauge: Gauge, photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    opened = [Image.open(path) for path in files]
    own = Gauge(EMBEDDED, probe=opened, cache_dir=tmp_path)
    model = tuned()
    found, expected = own.read(model).drift, gauge.read(model).drift
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_what_was_read_of_the_backbone_is_kept(photos: Path, tmp_path: Path) -> None:
    first = Gauge(probe=photos, transfers={"mine": photos}, cache_dir=tmp_path)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "baselines").glob("*.safetensors")}
    again = clipdrift.Gauge(probe=str(photos), transfers={"mine": photos}, cache_dir=str(tmp_path))
    assert len(stamps) == 2
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert again.baseline == first.baseline


def test_every_fault_of_the_sets_is_told_at_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipdriftError) as error:
        Gauge(probe=photos, transfers=["cifar1000", tmp_path / "none"], cache_dir=tmp_path)
    text = str(error.value)
    assert "cifar1000" in text
    assert "none" in text
    with pytest.raises(ClipdriftError, match="probe\\[1\\]: expected a PIL image"):
        Gauge(probe=[pictures(1)[0], "x.png"], cache_dir=tmp_path)  # type: ignore[list-item]
