"""What the untouched backbone reads, measured once per study and shared by all its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.data.captions import Captions
from clipdrift.data.images import Images
from clipdrift.probes.average_precision import average_precision
from clipdrift.probes.capture import ProbeReading, read_probe
from clipdrift.probes.retrieval import retrieval
from clipdrift.probes.traces import Traces
from clipdrift.probes.zero_shot import cosines, largest
from clipdrift.reading.in_full import InFull, read_in_full
from clipdrift.reading.screening import Predictor
from clipdrift.reading.sealed import load_sealed, save_sealed
from clipdrift.records.correct import Correct
from clipdrift.records.transfer import AveragePrecision, Retrieval
from clipdrift.training.loop import in_batches

PROBE_BATCH = 50
Scored = Correct | Retrieval | AveragePrecision
"""The images that were right; or how well captions are found, or images of each class."""


@dataclass(frozen=True)
class TransferBaseline:
    """One set before fine-tuning: what was read of it, and of its part for epochs.

    text_features: class embeddings [C, E]; of captions those of the distinct texts [U, E].
    """

    text_features: Tensor
    scored: Scored
    epoch_scored: Scored | None
    in_full: InFull | None = None


@dataclass(frozen=True)
class Baselines:
    """The untouched backbone on a probe set and on every transfer set.

    target: on the test part of the target, zero-shot; None where there is no target.
    traces: flow and gradient on images of the probe set, where the panel is asked for.
    """

    probe: ProbeReading
    target: TransferBaseline | None
    transfers: Mapping[str, TransferBaseline]
    traces: Traces | None = None


def score(
    encoder: ImageEncoder, images: Images, text_features: Tensor, predict: Predictor
) -> Scored:
    """A set by an encoder as it is now, adapters and all, against texts.

    Args:
        text_features: of its classes [C, E], or of its distinct captions [U, E].
    """
    device = encoder.mean.device
    text = text_features.to(device)
    if images.captions is not None:
        return _retrieved(encoder, images, images.captions, text, predict.batch_size)
    if images.truth is not None:
        return precision_of(lambda px: _cosines(encoder(px), text), images, device, predict)
    return predict.correct(lambda pixels: _cosines(encoder(pixels), text), images, device)


@torch.inference_mode()
def score_in_full(
    encoder: ImageEncoder, images: Images, text_features: Tensor, scale: float, batch_size: int
) -> tuple[Correct, InFull]:
    """A set of classes with all that its embeddings tell, by one pass in float32."""
    features = embedded(encoder, images, batch_size)
    found = read_in_full(features, text_features.to(features.device), images.labels, scale)
    return Correct.of(found.classes.numpy() == images.labels), found


@torch.inference_mode()
def embedded(encoder: ImageEncoder, images: Images, batch_size: int) -> Tensor:
    """[N, E] un-normalised, in float32."""
    batches = in_batches(images, batch_size)
    return torch.cat([encoder(b.to(encoder.mean.device)).float() for b in batches])


@torch.inference_mode()
def precision_of(
    scores: Callable[[Tensor], Tensor], images: Images, device: torch.device, predict: Predictor
) -> AveragePrecision:
    """Average precision of each class, from scores [B, C] in float32."""
    batches = in_batches(images, predict.batch_size)
    found = torch.cat([scores(b.to(device)).float().cpu() for b in batches])
    return _precision(found, images)


def _precision(scores: Tensor, images: Images) -> AveragePrecision:
    truth = images.truth
    assert truth is not None
    each = average_precision(scores, torch.from_numpy(truth))
    known = [None if value.isnan() else float(value) for value in each]
    return AveragePrecision(map=float(each.nanmean()), classes=known)


@torch.inference_mode()
def _retrieved(
    encoder: ImageEncoder, images: Images, captions: Captions, text: Tensor, batch_size: int
) -> Retrieval:
    """In float32 throughout: a rank can hang on the last digits."""
    return _retrieval(embedded(encoder, images, batch_size), captions, text)


def _retrieval(features: Tensor, captions: Captions, text: Tensor) -> Retrieval:
    owner, which = torch.from_numpy(captions.owner), torch.from_numpy(captions.text)
    found = retrieval(features, text, owner, which)
    return Retrieval(**found, n_captions=len(captions.owner))


def score_embeddings(features: Tensor, images: Images, text_features: Tensor) -> Scored:
    """A set from embeddings of its images that are there, against texts, all in float32.

    Args:
        features: [N, E]. text_features: as for `score`, on the same device.
    """
    if images.captions is not None:
        return _retrieval(features, images.captions, text_features)
    return score_logits(cosines(features, text_features), images)


def score_logits(scores: Tensor, images: Images) -> Correct | AveragePrecision:
    """A set of classes from scores [N, C] of its images."""
    if images.truth is not None:
        return _precision(scores.float().cpu(), images)
    return Correct.of(largest(scores).cpu().numpy() == images.labels)


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
    in_full: bool = False,
) -> TransferBaseline:
    """Zero-shot reading of the untouched backbone on the whole set and on its epoch part.

    In float32 throughout: it is measured once for all runs.
    """
    encoder, predict = backbone.encoder(), Predictor(batch_size)
    captions, few = images.captions, None
    if captions is None:
        text = backbone.text_features(prompts)
    else:
        text = backbone.live_text_encoder().features(captions.texts)
    if epoch_images is not None:
        few = score(encoder, epoch_images, texts_of(epoch_images, images, text), predict)
    if in_full and captions is None and images.truth is None:
        whole, full = score_in_full(encoder, images, text, backbone.logit_scale, batch_size)
        return TransferBaseline(text.cpu(), whole, few, full)
    return TransferBaseline(text.cpu(), score(encoder, images, text, predict), few)


def texts_of(part: Images, whole: Images, text_features: Tensor) -> Tensor:
    """Of the text embeddings of a whole set, those that a part of it is held against."""
    if part.captions is None or whole.captions is None or part is whole:
        return text_features
    return text_features[torch.from_numpy(part.captions.rows_of(whole.captions))]


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


def save_traces(traces: Traces, path: Path) -> None:
    """Write flow and gradient with a checksum, whole or not at all."""
    save_sealed(path, {k: v for k, v in vars(traces).items() if v is not None}, {})


def load_traces(path: Path) -> Traces | None:
    """What `save_traces` wrote, or None if it is missing or damaged."""
    saved = load_sealed(path)
    return None if saved is None else Traces(**saved[0])


def save_transfer(baseline: TransferBaseline, path: Path) -> None:
    """Write a transfer baseline with a checksum: text features, what was read as facts."""
    epoch, full = baseline.epoch_scored, baseline.in_full
    facts = {
        "scored": baseline.scored.model_dump(),
        "epoch_scored": epoch.model_dump() if epoch else None,
        **({"in_full": full.numbers} if full else {}),
    }
    images = {"classes": full.classes, "margins": full.margins} if full else {}
    save_sealed(path, {"text_features": baseline.text_features, **images}, facts)


def load_transfer(path: Path) -> TransferBaseline | None:
    """A baseline written by `save_transfer`, or None if it is missing, damaged or older."""
    saved = load_sealed(path)
    if saved is None:
        return None
    try:
        facts = dict(saved[1])
        full = facts.pop("in_full", None)
        read = {name: value and _scored(value) for name, value in facts.items()}
        kept = InFull(saved[0]["classes"], saved[0]["margins"], full) if full else None
        return TransferBaseline(saved[0]["text_features"], **read, in_full=kept)
    except (TypeError, KeyError, ValidationError):
        return None


def _scored(facts: Mapping[str, Any]) -> Scored:
    if "bits" in facts:
        return Correct(**facts)
    return AveragePrecision(**facts) if "classes" in facts else Retrieval(**facts)
