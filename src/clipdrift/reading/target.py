"""Reading the target of a study: the parts that are classified with the head that trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import chance
from clipdrift.records.correct import Correct
from clipdrift.records.schema import Result
from clipdrift.training.loop import in_batches


@dataclass(frozen=True)
class Classified:
    """Target classification: the images that are right, and mean cross-entropy (nats)."""

    correct: Correct
    loss: float


@torch.inference_mode()
def classify(model: AdaptedModel, images: Images, *, batch_size: int) -> Classified:
    """Right images and loss of the adapted model with its head: all of it in float32."""
    device = model.encoder.mean.device
    logits = torch.cat([model(b.to(device)).cpu() for b in in_batches(images, batch_size)])
    labels = torch.from_numpy(images.labels)
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return Classified(Correct.of((logits.argmax(dim=1) == labels).numpy()), float(loss))


def classified(gauge: Gauge, model: AdaptedModel, images: Images) -> Correct:
    """Images that the adapted model with its head classifies rightly."""
    return gauge.predict.correct(model, images, model.encoder.mean.device)


def read_val(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    """`val_accuracy` and `correct` of a reading; null and empty in a study without validation."""
    if not len(gauge.target.val):
        return {"val_accuracy": None, "correct": {}}
    found = classified(gauge, model, gauge.target.val)
    return {"val_accuracy": found.accuracy, "correct": {"val_accuracy": found}}


def read_test(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    """Fields of a result: the test part with the head and zero-shot, and every transfer set."""
    images = gauge.target.test
    test = classify(model, images, batch_size=gauge.predict.batch_size)
    zero_shot, right = gauge.on_target(model)
    transfers = gauge.zero_shot(model, whole=True)
    return {
        "test_accuracy": test.correct.accuracy,
        "test_loss": test.loss,
        "test_n_images": test.correct.n,
        "test_chance": chance(images.labels),
        "target_zero_shot": zero_shot,
        "transfer": transfers.readings,
        "correct": {
            "test_accuracy": test.correct,
            **right,
            **transfers.correct,
        },
    }


def read_result(gauge: Gauge, model: AdaptedModel) -> Result:
    """Everything but post-hoc readings, anew, of a model whose weights are chosen."""
    drift, _ = gauge.drift(model)
    val, test = read_val(gauge, model), read_test(gauge, model)
    correct = {**val.pop("correct"), **test.pop("correct")}
    levels = drift.model_dump(exclude={"val_accuracy", "transfer", "correct"})
    return Result(**levels, **val, **test, correct=correct)


__all__ = ["classified", "classify", "read_result", "read_test", "read_val"]
