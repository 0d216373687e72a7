"""What the untouched backbone reads, measured once per study and shared by all its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.data.images import Images
from clipdrift.probes.capture import ProbeReading, read_probe
from clipdrift.probes.zero_shot import cosines
from clipdrift.reading.screening import Predictor
from clipdrift.reading.sealed import load_sealed, save_sealed
from clipdrift.records.correct import Correct
from clipdrift.training.loop import in_batches

PROBE_BATCH = 50


@dataclass(frozen=True)
class TransferBaseline:
    """One set before fine-tuning: class embeddings [C, E] and the images that were right."""

    text_features: Tensor
    correct: Correct
    epoch_correct: Correct | None


@dataclass(frozen=True)
class Baselines:
    """The untouched backbone on a probe set and on every transfer set.

    target: on the test part of the target, zero-shot; None where there is no target.
    """

    probe: ProbeReading
    target: TransferBaseline | None
    transfers: Mapping[str, TransferBaseline]


def score(
    encoder: ImageEncoder, images: Images, text_features: Tensor, predict: Predictor
) -> Correct:
    """Images that an encoder as it is now, adapters and all, classifies rightly zero-shot."""
    device = encoder.mean.device
    text = text_features.to(device)
    return predict.correct(lambda pixels: _cosines(encoder(pixels), text), images, device)


def _cosines(features: Tensor, text: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return cosines(features, text)


def probe(encoder: ImageEncoder, images: Images) -> ProbeReading:
    """Every drift signal of an encoder as it is now, in one pass over the probe images."""
    device = encoder.mean.device
    batches = (encoder.normalise(b.to(device)) for b in in_batches(images, PROBE_BATCH))
    return read_probe(encoder.encode, encoder.tower, batches)


def measure_transfer(
    backbone: Backbone,
    prompts: list[list[str]],
    images: Images,
    epoch_images: Images | None,
    *,
    batch_size: int,
) -> TransferBaseline:
    """Zero-shot reading of the untouched backbone on the whole set and on its epoch part.

    In float32 throughout: it is measured once for all runs.
    """
    encoder, predict = backbone.encoder(), Predictor(batch_size)
    text = backbone.text_features(prompts)
    return TransferBaseline(
        text_features=text.cpu(),
        correct=score(encoder, images, text, predict),
        epoch_correct=score(encoder, epoch_images, text, predict)
        if epoch_images is not None
        else None,
    )


def save_reading(reading: ProbeReading, path: Path) -> None:
    """Write a probe reading with a checksum, whole or not at all."""
    save_sealed(path, reading.tensors(), {})


def load_reading(path: Path) -> ProbeReading | None:
    """A reading written by `save_reading`, or None if it is missing or damaged."""
    try:
        saved = load_sealed(path)
        return ProbeReading(**saved[0]) if saved else None
    except TypeError:  # other fields than a reading has now
        return None


def save_transfer(baseline: TransferBaseline, path: Path) -> None:
    """Write a transfer baseline with a checksum: text features, right images as facts."""
    epoch = baseline.epoch_correct
    facts = {
        "correct": baseline.correct.model_dump(),
        "epoch_correct": epoch.model_dump() if epoch else None,
    }
    save_sealed(path, {"text_features": baseline.text_features}, facts)


def load_transfer(path: Path) -> TransferBaseline | None:
    """A baseline written by `save_transfer`, or None if it is missing, damaged or older."""
    saved = load_sealed(path)
    if saved is None:
        return None
    try:
        facts = {name: value and Correct(**value) for name, value in saved[1].items()}
        return TransferBaseline(saved[0]["text_features"], **facts)
    except (TypeError, KeyError, ValidationError):
        return None
