"""Reading a model as it is now: the numbers of one epoch, all taken on the live encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder, TextEncoder
from clipdrift.data.images import Images
from clipdrift.methods.adapted import NOT_PLAIN
from clipdrift.probes.attention_maps import has_cls_token
from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import Value, drift_signals, undefined_without_cls
from clipdrift.probes.panel import panel_reasons
from clipdrift.probes.plugged import plugged_signals
from clipdrift.probes.retrieval import chance_recall
from clipdrift.probes.weights import weight_drift_rel
from clipdrift.probes.zero_shot import (
    chance_corrected_retention_pct,
    corrected_retention_pct,
    retention_pct,
)
from clipdrift.reading.baseline import Scored, probe
from clipdrift.reading.in_full import InFull, why_undefined
from clipdrift.records.correct import Correct
from clipdrift.records.readings import TARGET_ZERO_SHOT, Reading, Result
from clipdrift.records.transfer import AveragePrecision, Retrieval, TransferReading

NOT_FINITE = "the baseline value is zero, or a value on the way is not finite"
NO_PICTURES = "the vision tower has no CLS token: there is no CLS row of attention to draw"


class ZeroShot(NamedTuple):
    """Zero-shot readings by name, and the images behind their accuracies by dotted name.

    in_full: of sets that were read in full, image by image.
    """

    readings: dict[str, TransferReading]
    correct: dict[str, Correct]
    in_full: dict[str, InFull]


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
    return drift_of(model, found, backbone, baseline, probes), found


def drift_of(
    model: Readable,
    found: ProbeReading,
    backbone: Backbone,
    baseline: ProbeReading,
    probes: Sequence[str] = (),
) -> Reading:
    """What `read_drift` says of a model whose probe images have been read."""
    levels, drift = drift_signals(found, baseline)
    drift.update(plugged_signals(probes, found, baseline))
    drift["weight_drift_rel"] = _moved(model.vision_state(), backbone.vision_state())
    drift["projection_drift_rel"] = weight_drift_rel(
        model.projection_state(), backbone.projection_state()
    )
    if model.text is not None:
        drift.update(_text_drift(model, backbone))
    return Reading(**unfolded(levels, drift))


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


def both(name: str, now: Scored, before: Scored) -> dict[str, Correct]:
    """The images behind accuracies, adapted and baseline, by dotted name; none of retrieval."""
    if not isinstance(now, Correct) or not isinstance(before, Correct):
        return {}
    return {f"{name}.accuracy": now, f"{name}.baseline_accuracy": before}


def chance(labels: NDArray[np.int64]) -> float:
    """Accuracy of always naming the commonest class: 1 / C where C classes are balanced.

    >>> chance(np.array([0, 1, 1, 2]))
    0.5
    """
    return int(np.bincount(labels).max()) / len(labels)


def transfer_reading(
    now: Scored, before: Scored, images: Images, n_classes: int
) -> TransferReading:
    """A set by the adapted model and by the baseline, with what the two amount to."""
    if isinstance(now, Retrieval) or isinstance(before, Retrieval):
        return _retrieval_reading(now, before, images)
    if isinstance(now, AveragePrecision) or isinstance(before, AveragePrecision):
        return _precision_reading(now, before, images)
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
        chance=chance(images.labels),
    )


def _retrieval_reading(now: Scored, before: Scored, images: Images) -> TransferReading:
    captions = images.captions
    assert captions is not None
    assert isinstance(now, Retrieval)
    assert isinstance(before, Retrieval)
    score, baseline = (read.mean_recall or 0.0 for read in (now, before))
    guess = chance_recall(torch.from_numpy(captions.owner), torch.from_numpy(captions.text))
    return TransferReading(
        **now.model_dump(),
        accuracy=None,
        baseline_mean_recall=baseline,
        retention_pct=retention_pct(score, baseline),
        chance_corrected_retention_pct=corrected_retention_pct(score, baseline, guess),
        n_images=len(images),
        chance=guess,
    )


def _precision_reading(now: Scored, before: Scored, images: Images) -> TransferReading:
    truth = images.truth
    assert truth is not None
    assert isinstance(now, AveragePrecision)
    assert isinstance(before, AveragePrecision)
    share = truth.mean(axis=0)
    guess = float(share[share > 0].mean())
    return TransferReading(
        accuracy=None,
        map=now.map,
        baseline_map=before.map,
        retention_pct=retention_pct(now.map, before.map),
        chance_corrected_retention_pct=corrected_retention_pct(now.map, before.map, guess),
        n_images=len(images),
        n_classes=truth.shape[1],
        chance=guess,
    )


def main_numbers(transfers: Mapping[str, TransferReading]) -> dict[str, float | None]:
    """Score and retention of every transfer set, by dotted name."""
    return {
        f"transfer.{name}.{field}": getattr(reading, field)
        for name, reading in transfers.items()
        for field in (reading.score_name, "retention_pct")
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
    if reading.val_score is None:
        score = "val_accuracy" if reading.score_name == "accuracy" else "val_score"
        reasons[score] = "no validation images in this study"
    if isinstance(reading, Result):
        for name, value in (reading.test_average_precision or {}).items():
            if value is None:
                reasons[f"test_average_precision.{name}"] = "no test image is of this class"
    zero_shot = {f"transfer.{name}": found for name, found in reading.transfer.items()}
    if isinstance(reading, Result) and reading.target_zero_shot is not None:
        zero_shot[TARGET_ZERO_SHOT] = reading.target_zero_shot
    for name, found in zero_shot.items():
        for field in ("retention_pct", "chance_corrected_retention_pct"):
            if getattr(found, field) is None:
                why = found.at_chance or "the baseline is not above the reference"
                reasons[f"{name}.{field}"] = why
        full = why_undefined(found.in_full)
        reasons |= {f"{name}.{field}": why for field, why in full.items()}
    of_panel = panel_reasons(
        has_cls="drift.cka_mean" not in lacking, not_plain=lacking.get("drift.weight_drift_rel")
    )
    for group in ("levels", "drift"):
        for name in (f"{group}.{n}" for n, v in getattr(reading, group).items() if v is None):
            reasons.setdefault(name, of_panel.get(name, NOT_FINITE))
    return reasons


def unfolded(levels: Mapping[str, Value], drift: Mapping[str, Value]) -> dict[str, Any]:
    """Fields of a reading: means, and lists over blocks under the same names in a field apart."""
    fields: dict[str, Any] = {}
    for group, values in (("levels", levels), ("drift", drift)):
        fields[group] = {n: value for n, value in values.items() if not isinstance(value, list)}
        fields[f"{group}_per_block"] = {
            name.replace("_per_block", ""): value
            for name, value in values.items()
            if isinstance(value, list)
        }
    return fields
