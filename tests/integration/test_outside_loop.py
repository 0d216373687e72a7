"""A training loop of one's own is read like a run: by the Trainer's callback, or a line of code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from offline_logs import mlflow_run, offline_history
from small_models import EMBEDDED, land_cover
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModel, Trainer, TrainingArguments

from clipdrift import DriftCallback, Gauge


class Photos(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        images = land_cover(24)
        self.values = torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 127.5 - 1
        self.labels = torch.from_numpy(images.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"pixel_values": self.values[i], "labels": self.labels[i]}


class Classifier(nn.Module):
    """What people write: a CLIP with LoRA, and a head on its embedding."""

    def __init__(self) -> None:
        super().__init__()
        clip = AutoModel.from_pretrained(EMBEDDED, dtype=torch.float32)
        config = peft.LoraConfig(r=4, target_modules=r".*vision_model.*(q_proj|v_proj)")
        self.clip = peft.get_peft_model(clip, config)
        self.head = nn.Linear(64, 10)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = self.clip.get_image_features(pixel_values=pixel_values).pooler_output
        logits = self.head(features)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class OfPart(Gauge):
    """Reads the part of the model that is a CLIP."""

    def read(self, model: Any) -> Any:
        return super().read(model.clip)


@pytest.fixture(scope="module")
def gauge(cache_dir: Path) -> Gauge:
    from PIL import Image

    pictures = [Image.fromarray(one) for one in land_cover(12, seed=9).pixels]
    world = {"builtin": "world", "n_images": 60}
    return OfPart(EMBEDDED, probe=pictures, transfers={"world": world}, cache_dir=cache_dir)


def trained(gauge: Gauge, out: Path, *, report_to: list[str], every: Any = "epoch") -> Any:
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        report_to=report_to,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    torch.manual_seed(3)
    callback = DriftCallback(gauge, every=every)
    trainer = Trainer(
        model=Classifier(), args=arguments, train_dataset=Photos(), callbacks=[callback]
    )
    trainer.train()
    return trainer, callback


def test_the_trainers_callback_reads_and_logs(gauge: Gauge, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer, callback = trained(gauge, tmp_path, report_to=["tensorboard"])
    assert list(callback.readings) == [0, 3, 6]
    first, *_, last = callback.readings.values()
    assert first == gauge.baseline
    assert last == gauge.read(trainer.model)  # the numbers of these very weights
    assert last.drift["weight_drift_rel"] > 0
    name = "clipdrift/drift.weight_drift_rel"
    logged = [row[name] for row in trainer.state.log_history if name in row]
    assert logged == [one.drift["weight_drift_rel"] for one in callback.readings.values()]
    (events,) = [
        found
        for folder in {path.parent for path in tmp_path.rglob("events.*")}
        if f"train/{name}" in (found := EventAccumulator(str(folder)).Reload()).Tags()["scalars"]
    ]
    written = events.Scalars(f"train/{name}")
    assert [one.step for one in written] == [0, 3, 6]
    assert [one.value for one in written] == pytest.approx(logged)


def test_reading_changes_nothing_of_a_training(gauge: Gauge, tmp_path: Path) -> None:
    with_reading, _ = trained(gauge, tmp_path / "a", report_to=[], every=1)
    without, _ = trained(gauge, tmp_path / "b", report_to=[], every=10**6)
    pairs = zip(with_reading.model.parameters(), without.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_weights_and_biases_gets_the_scalars_offline(gauge: Gauge, wandb_offline: Path) -> None:
    import wandb

    _, callback = trained(gauge, wandb_offline, report_to=["wandb"])
    wandb.finish()
    logged = offline_history(wandb_offline)["train/clipdrift/drift.weight_drift_rel"]
    expected = [one.drift["weight_drift_rel"] for one in callback.readings.values()]
    assert logged == pytest.approx(expected)
    assert os.environ["WANDB_MODE"] == "offline"


def test_mlflow_gets_the_scalars(gauge: Gauge, mlflow_offline: Path) -> None:
    _, callback = trained(gauge, mlflow_offline, report_to=["mlflow"])
    _, history = mlflow_run()
    expected = [one.drift["weight_drift_rel"] for one in callback.readings.values()]
    assert history("clipdrift/drift.weight_drift_rel") == pytest.approx(expected)


@pytest.mark.parametrize("every", [0, -1, True, "step", 1.5])
def test_a_period_that_is_none_is_refused(gauge: Gauge, every: Any) -> None:
    with pytest.raises(ValueError, match="expected 'epoch' or a number of steps"):
        DriftCallback(gauge, every=every)


def test_a_plain_loop_takes_three_lines(gauge: Gauge) -> None:
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    photos = Photos()
    kept = []
    for _ in range(2):
        model(photos.values, photos.labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        kept.append(gauge.read(model).transfer["world"].retention_pct)
    assert len(kept) == 2
    assert model.training
