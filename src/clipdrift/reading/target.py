"""Reading the target of a study, its parts: by the head that trained, or against captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.reading.baseline import Scored, precision_of
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.in_full import head_in_full
from clipdrift.reading.model import chance
from clipdrift.records.correct import Correct
from clipdrift.records.readings import OF_SETS, Result
from clipdrift.records.transfer import AveragePrecision, Retrieval, TransferReading
from clipdrift.training.loop import in_batches


@dataclass(frozen=True)
class Classified:
    """Target classification: images that are right, mean cross-entropy (nats), logits [N, C]."""

    correct: Correct
    loss: float
    logits: Tensor


@torch.inference_mode()
def classify(model: AdaptedModel, images: Images, *, batch_size: int) -> Classified:
    """Right images and loss of the adapted model with its head: all of it in float32."""
    device = model.encoder.mean.device
    logits = torch.cat([model(b.to(device)).cpu() for b in in_batches(images, batch_size)])
    labels = torch.from_numpy(images.labels)
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return Classified(Correct.of((logits.argmax(dim=1) == labels).numpy()), float(loss), logits)


def classified(gauge: Gauge, model: AdaptedModel, images: Images) -> Correct:
    """Images that the adapted model with its head classifies rightly."""
    return gauge.predict.correct(model, images, model.encoder.mean.device)


def score_of(found: Scored) -> float:
    """Accuracy, mean recall or mean average precision, a fraction."""
    if isinstance(found, Correct):
        return found.accuracy
    value = found.map if isinstance(found, AveragePrecision) else found.mean_recall
    assert value is not None
    return value


def on_part(gauge: Gauge, model: AdaptedModel, part: Literal["val", "test"]) -> Scored:
    """A part of the target: by the head, or of images with captions against those."""
    images = gauge.target.sets[part]
    if images.truth is not None:
        return precision_of(model, images, model.encoder.mean.device, gauge.predict)
    if images.captions is None:
        return classified(gauge, model, images)
    return gauge.on_validation(model) if part == "val" else gauge.on_test(model)


def read_val(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    """Score of the validation part, and `correct` of a reading; null without such a part."""
    name = {"score_name": gauge.target.score_name}
    if not len(gauge.target.val):
        return {**name, "correct": {}}
    found = on_part(gauge, model, "val")
    if isinstance(found, Correct):
        return {**name, "val_accuracy": found.accuracy, "correct": {"val_accuracy": found}}
    return {**name, "val_score": score_of(found), "correct": {}}


def read_test(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    """Fields of a result: the test part with the head and zero-shot, and every transfer set."""
    zero_shot, right = gauge.on_target(model)
    transfers = gauge.zero_shot(model, whole=True)
    if gauge.target.score_name == "mean_recall":
        own = _of_pairs(zero_shot)
    elif gauge.target.score_name == "map":
        own = _of_several(gauge, model)
    else:
        own = _of_classes(gauge, model)
    return {
        **own,
        "test_n_images": len(gauge.target.test),
        "target_zero_shot": zero_shot,
        "transfer": transfers.readings,
        "correct": {**own.get("correct", {}), **right, **transfers.correct},
        "image_by_image": transfers.in_full,
    }


def _of_classes(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    images = gauge.target.test
    test = classify(model, images, batch_size=gauge.predict.batch_size)
    return {
        "test_accuracy": test.correct.accuracy,
        "test_loss": test.loss,
        "extra": _calibrated(gauge, test.logits, images),
        "test_chance": chance(images.labels),
        "correct": {"test_accuracy": test.correct},
    }


def _calibrated(gauge: Gauge, logits: Tensor, images: Images) -> dict[str, float | None]:
    """How far the head's confidence can be trusted, where the study asks for it."""
    found = head_in_full(logits, images.labels) if gauge.in_full else {}
    return {f"test_{name}": value for name, value in found.items()}


def _of_several(gauge: Gauge, model: AdaptedModel) -> dict[str, Any]:
    """By the head, whose sigmoid does not reorder images."""
    found = on_part(gauge, model, "test")
    assert isinstance(found, AveragePrecision)
    each = dict(zip(gauge.target.class_names, found.classes, strict=True))
    return {"test_score": found.map, "test_average_precision": each}


def _of_pairs(read: TransferReading) -> dict[str, Any]:
    """There is no head: what the test part is read by are its captions."""
    own = Retrieval(**{field: getattr(read, field) for field in Retrieval.model_fields})
    return {"test_score": read.mean_recall, "test_retrieval": own, "test_chance": read.chance}


def read_result(gauge: Gauge, model: AdaptedModel) -> Result:
    """Everything but post-hoc readings, anew, of a model whose weights are chosen."""
    drift, _ = gauge.drift(model)
    val, test = read_val(gauge, model), read_test(gauge, model)
    correct = {**val.pop("correct"), **test.pop("correct")}
    test.pop("image_by_image")
    levels = drift.model_dump(exclude=OF_SETS)
    return Result(**levels, **val, **test, correct=correct)
