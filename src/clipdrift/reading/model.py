"""Reading a model as it is now: the numbers of one epoch, all taken on the live encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipdrift.backbone import Backbone, ImageEncoder, TextEncoder
from clipdrift.data.images import Images
from clipdrift.materials import Materials, TargetMaterial
from clipdrift.methods.adapted import NOT_PLAIN, AdaptedModel
from clipdrift.probes.attention_maps import has_cls_token
from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import Value, drift_signals, undefined_without_cls
from clipdrift.probes.plugged import plugged_signals
from clipdrift.probes.weights import weight_drift_rel
from clipdrift.probes.zero_shot import chance_corrected_retention_pct, retention_pct
from clipdrift.reading.baseline import TransferBaseline, probe, score
from clipdrift.reading.screening import Predictor
from clipdrift.records.correct import Correct
from clipdrift.records.schema import TARGET_ZERO_SHOT, Reading, Result, TransferReading
from clipdrift.training.loop import in_batches

NO_PICTURES = "the vision tower has no CLS token: there is no CLS row of attention to draw"


@dataclass(frozen=True)
class Baselines:
    """The untouched backbone on one target's probe set and test part, and on every transfer set.

    target: the test part, zero-shot.
    """

    probe: ProbeReading
    target: TransferBaseline
    transfers: Mapping[str, TransferBaseline]


class ZeroShot(NamedTuple):
    """Zero-shot readings by name, and the images behind their accuracies by dotted name."""

    readings: dict[str, TransferReading]
    correct: dict[str, Correct]


@dataclass(frozen=True)
class Classified:
    """Target classification: the images that are right, and mean cross-entropy (nats)."""

    correct: Correct
    loss: float


class Readable(Protocol):
    """A model whose image path can be read, with its weights as a plain CLIP would hold them.

    `vision_state` and `text_state` are None where no plain CLIP could. `text` is the live text path
    of a method that adapts one.
    """

    @property
    def encoder(self) -> ImageEncoder: ...

    def vision_state(self) -> dict[str, Tensor] | None: ...

    def projection_state(self) -> dict[str, Tensor]: ...

    @property
    def text(self) -> TextEncoder | None: ...

    def text_state(self) -> dict[str, Tensor] | None: ...

    def text_projection_state(self) -> dict[str, Tensor]: ...


@torch.inference_mode()
def classify(model: AdaptedModel, images: Images, *, batch_size: int) -> Classified:
    """Accuracy and loss of the adapted model with its head: all of it in float32."""
    device = model.encoder.mean.device
    logits = torch.cat([model(b.to(device)).cpu() for b in in_batches(images, batch_size)])
    labels = torch.from_numpy(images.labels)
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return Classified(Correct.of((logits.argmax(dim=1) == labels).numpy()), float(loss))


def classified(model: AdaptedModel, images: Images, predict: Predictor) -> Correct:
    """Images that the adapted model with its head classifies rightly."""
    return predict.correct(model, images, model.encoder.mean.device)


def read_val(model: AdaptedModel, target: TargetMaterial, predict: Predictor) -> dict[str, Any]:
    """`val_accuracy` and `correct` of a reading; null and empty in a study without validation."""
    if not len(target.val):
        return {"val_accuracy": None, "correct": {}}
    found = classified(model, target.val, predict)
    return {"val_accuracy": found.accuracy, "correct": {"val_accuracy": found}}


def read_drift(
    model: Readable,
    backbone: Backbone,
    images: Images,
    baseline: ProbeReading,
    probes: Sequence[str] = (),
) -> tuple[Reading, ProbeReading]:
    """Levels and drift of the model on the probe set, weight movement included.

    Args:
        probes: names of drift signals that other packages add.
    """
    found = probe(model.encoder, images)
    levels, drift = drift_signals(found, baseline)
    drift.update(plugged_signals(probes, found, baseline))
    drift["weight_drift_rel"] = _moved(model.vision_state(), backbone.vision_state())
    drift["projection_drift_rel"] = weight_drift_rel(
        model.projection_state(), backbone.projection_state()
    )
    if model.text is not None:
        drift.update(_text_drift(model, backbone))
    level_means, level_blocks = _unfold(levels)
    drift_means, drift_blocks = _unfold(drift)
    reading = Reading(
        levels=level_means,
        levels_per_block=level_blocks,
        drift=drift_means,
        drift_per_block=drift_blocks,
    )
    return reading, found


def _text_drift(model: Readable, backbone: Backbone) -> dict[str, Value]:
    """How far the text tower and its projection moved."""
    projection = model.text_projection_state()
    return {
        "text_weight_drift_rel": _moved(model.text_state(), backbone.text_state()),
        "text_projection_drift_rel": weight_drift_rel(projection, backbone.text_projection_state()),
    }


def _moved(state: Mapping[str, Tensor] | None, before: Mapping[str, Tensor]) -> Value:
    """How far a tower moved; None where no plain weights amount to it."""
    return None if state is None else weight_drift_rel(state, before)


def read_transfers(
    model: AdaptedModel,
    materials: Materials,
    baselines: Mapping[str, TransferBaseline],
    predict: Predictor,
    *,
    whole: bool,
) -> ZeroShot:
    """Zero-shot accuracy and retention on every transfer set, or on its part for epochs.

    Classes are read by the live text tower where the method adapts one.
    """
    found = ZeroShot({}, {})
    for name, transfer in materials.transfers.items():
        images = transfer.images if whole else transfer.epoch_images
        before = baselines[name].correct if whole else baselines[name].epoch_correct
        if images is None or before is None:
            continue
        text = baselines[name].text_features
        now = _zero_shot(model, images, transfer.prompts, text, predict)
        found.readings[name] = transfer_reading(now, before, images.labels, len(transfer.prompts))
        found.correct.update(_both(f"transfer.{name}", now, before))
    return found


def _zero_shot(
    model: AdaptedModel,
    images: Images,
    prompts: list[list[str]],
    untouched: Tensor,
    predict: Predictor,
) -> Correct:
    text = untouched if model.text is None else model.text.class_features(prompts)
    return score(model.encoder, images, text, predict)


def _both(name: str, now: Correct, before: Correct) -> dict[str, Correct]:
    return {f"{name}.accuracy": now, f"{name}.baseline_accuracy": before}


def read_test(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    predict: Predictor,
) -> dict[str, Any]:
    """Fields of a result: the test part with the head and zero-shot, and every transfer set."""
    test = classify(model, target.test, batch_size=predict.batch_size)
    before = baselines.target
    now = _zero_shot(model, target.test, target.prompts, before.text_features, predict)
    labels, n_classes = target.test.labels, len(target.prompts)
    transfers = read_transfers(model, materials, baselines.transfers, predict, whole=True)
    return {
        "test_accuracy": test.correct.accuracy,
        "test_loss": test.loss,
        "test_n_images": test.correct.n,
        "test_chance": chance(labels),
        "target_zero_shot": transfer_reading(now, before.correct, labels, n_classes),
        "transfer": transfers.readings,
        "correct": {
            "test_accuracy": test.correct,
            **_both(TARGET_ZERO_SHOT, now, before.correct),
            **transfers.correct,
        },
    }


def read_result(
    model: AdaptedModel,
    materials: Materials,
    target: TargetMaterial,
    baselines: Baselines,
    predict: Predictor,
    probes: Sequence[str],
) -> Result:
    """Everything but post-hoc readings, anew, of a model whose weights are chosen."""
    drift, _ = read_drift(model, materials.backbone, target.probe, baselines.probe, probes)
    val = read_val(model, target, predict)
    test = read_test(model, materials, target, baselines, predict)
    correct = {**val.pop("correct"), **test.pop("correct")}
    levels = drift.model_dump(exclude={"val_accuracy", "transfer", "correct"})
    return Result(**levels, **val, **test, correct=correct)


def chance(labels: NDArray[np.int64]) -> float:
    """Accuracy of always naming the commonest class: 1 / C where C classes are balanced.

    >>> chance(np.array([0, 1, 1, 2]))
    0.5
    """
    return int(np.bincount(labels).max()) / len(labels)


def transfer_reading(
    now: Correct, before: Correct, labels: NDArray[np.int64], n_classes: int
) -> TransferReading:
    """A set by the adapted model and by the baseline, with what the two amount to."""
    accuracy, baseline = now.accuracy, before.accuracy
    return TransferReading(
        accuracy=accuracy,
        baseline_accuracy=baseline,
        retention_pct=retention_pct(accuracy, baseline),
        chance_corrected_retention_pct=chance_corrected_retention_pct(
            accuracy, baseline, n_classes
        ),
        delta_accuracy_pp=100 * (accuracy - baseline),
        n_images=now.n,
        n_classes=n_classes,
        chance=chance(labels),
    )


def main_numbers(transfers: Mapping[str, TransferReading]) -> dict[str, float | None]:
    """Accuracy and retention of every transfer set, by dotted name."""
    return {
        f"transfer.{name}.{field}": getattr(reading, field)
        for name, reading in transfers.items()
        for field in ("accuracy", "retention_pct")
    }


def not_read(backbone: Backbone, model: Readable | None = None) -> dict[str, str]:
    """Dotted name of everything that this kind of backbone, or of model, does not have -> why."""
    lacking = {}
    if not has_cls_token(backbone.model.vision_model):
        lacking = {**undefined_without_cls(), "attention_pictures": NO_PICTURES}
    if not backbone.projection_state():
        lacking["drift.projection_drift_rel"] = "the model has no visual projection"
    if model is not None and model.vision_state() is None:
        lacking["drift.weight_drift_rel"] = NOT_PLAIN
    if model is not None and model.text is not None and model.text_state() is None:
        lacking["drift.text_weight_drift_rel"] = NOT_PLAIN
    return lacking


def undefined_reasons(reading: Reading, lacking: Mapping[str, str]) -> dict[str, str]:
    """Dotted name of every value that is null in a reading -> why.

    Args:
        lacking: `not_read` of the backbone and the model.
    """
    reasons = dict(lacking)
    if reading.val_accuracy is None:
        reasons["val_accuracy"] = "no validation images in this study"
    zero_shot = {f"transfer.{name}": found for name, found in reading.transfer.items()}
    if isinstance(reading, Result) and reading.target_zero_shot is not None:
        zero_shot[TARGET_ZERO_SHOT] = reading.target_zero_shot
    for name, found in zero_shot.items():
        for field in ("retention_pct", "chance_corrected_retention_pct"):
            if getattr(found, field) is None:
                reasons[f"{name}.{field}"] = "the baseline is not above the reference"
    for group in ("levels", "drift"):
        for name, value in getattr(reading, group).items():
            if value is None:
                reasons.setdefault(
                    f"{group}.{name}",
                    "the baseline value is zero, or a value on the way is not finite",
                )
    return reasons


def _unfold(
    values: Mapping[str, Value],
) -> tuple[dict[str, float | None], dict[str, list[float | None]]]:
    """Means, and lists over blocks under the same names: their field says they are per block."""
    means = {name: value for name, value in values.items() if not isinstance(value, list)}
    blocks = {
        name.replace("_per_block", ""): value
        for name, value in values.items()
        if isinstance(value, list)
    }
    return means, blocks
