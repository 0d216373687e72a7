"""Reading a model as it is now: the numbers of one epoch, all taken on the live encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
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
from clipdrift.records.schema import Reading, Result, TransferReading
from clipdrift.training.loop import in_batches

NO_PICTURES = "the vision tower has no CLS token: there is no CLS row of attention to draw"


@dataclass(frozen=True)
class Baselines:
    """The untouched backbone on one target's probe set and on every transfer set."""

    probe: ProbeReading
    transfers: Mapping[str, TransferBaseline]


@dataclass(frozen=True)
class Classified:
    """Target classification: accuracy (fraction) and mean cross-entropy (nats)."""

    accuracy: float
    loss: float
    n_images: int


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
    hits = (logits.argmax(dim=1) == labels).double().mean()
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return Classified(float(hits), float(loss), len(images))


def accuracy(model: AdaptedModel, images: Images, predict: Predictor) -> float:
    """Accuracy (fraction) of the adapted model with its head."""
    return predict.accuracy(model, images, model.encoder.mean.device)


def val_accuracy(model: AdaptedModel, target: TargetMaterial, predict: Predictor) -> float | None:
    """Accuracy (fraction) on the validation images; None in a study without any."""
    return accuracy(model, target.val, predict) if len(target.val) else None


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
) -> dict[str, TransferReading]:
    """Zero-shot accuracy and retention on every transfer set, or on its part for epochs.

    Classes are read by the live text tower where the method adapts one.
    """
    readings = {}
    for name, transfer in materials.transfers.items():
        images = transfer.images if whole else transfer.epoch_images
        before = baselines[name].accuracy if whole else baselines[name].epoch_accuracy
        if images is None or before is None:
            continue
        text = baselines[name].text_features
        if model.text is not None:
            text = model.text.class_features(transfer.prompts)
        now = score(model.encoder, images, text, predict)
        readings[name] = transfer_reading(now, before, len(images), len(transfer.prompts))
    return readings


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
    test = classify(model, target.test, batch_size=predict.batch_size)
    return Result(
        **drift.model_dump(exclude={"val_accuracy", "transfer"}),
        val_accuracy=val_accuracy(model, target, predict),
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        test_n_images=test.n_images,
        transfer=read_transfers(model, materials, baselines.transfers, predict, whole=True),
    )


def transfer_reading(now: float, before: float, n_images: int, n_classes: int) -> TransferReading:
    """Accuracies (fractions) of a transfer set, adapted and baseline, with what they amount to."""
    return TransferReading(
        accuracy=now,
        baseline_accuracy=before,
        retention_pct=retention_pct(now, before),
        chance_corrected_retention_pct=chance_corrected_retention_pct(now, before, n_classes),
        delta_accuracy_pp=100 * (now - before),
        n_images=n_images,
        n_classes=n_classes,
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
    for name, transfer in reading.transfer.items():
        for field in ("retention_pct", "chance_corrected_retention_pct"):
            if getattr(transfer, field) is None:
                reasons[f"transfer.{name}.{field}"] = "the baseline is not above the reference"
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
