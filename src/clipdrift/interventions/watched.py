"""The sets of images on which edited models are read, and what their embeddings score there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipdrift.data.images import Images
from clipdrift.data.splits import balanced_subset
from clipdrift.materials import TransferMaterial
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.methods.head import Head
from clipdrift.reading.baseline import (
    Scored,
    TransferBaseline,
    score_embeddings,
    score_logits,
    texts_of,
)
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import Readable
from clipdrift.records.located import Edited

ORDER = 5
"""Seed of the order in which images pass: neighbours must not share a class."""


@dataclass(frozen=True)
class Watched:
    """One set, in random order.

    back: [N] positions that put the images in the order of their set. texts: what it is held
    against, by whose text side reads it. head: in place of texts, on the target: the classifier
    that trained.
    """

    name: str
    images: Images
    back: NDArray[np.int64]
    n_classes: int
    texts: dict[Edited, Tensor]
    on_target: bool = False
    in_full: bool = False
    head: Head | None = None

    @torch.inference_mode()
    def scored(self, features: Tensor, text: Edited) -> Scored:
        """From embeddings [N, E] on the CPU, by one of the text sides."""
        if self.head is not None:
            device = self.head.weight.device
            return score_logits(self.head(features.to(device)), self.images)
        return score_embeddings(features, self.images, self.texts[text].cpu())


def watched(gauge: Gauge, model: Readable, n_images: int) -> list[Watched]:
    """Every transfer set, and of a model with a head the target's test part.

    Args:
        n_images: at most so many of each set, class-balanced.
    """
    return [*_transfers(gauge, model, n_images), *_target(gauge, model, n_images)]


def _transfers(gauge: Gauge, model: Readable, n_images: int) -> Iterator[Watched]:
    for name, material in gauge.transfers.items():
        yield _of_texts(gauge, model, material, gauge.baselines.transfers[name], n_images, name)


def _target(gauge: Gauge, model: Readable, n_images: int) -> Iterator[Watched]:
    if not isinstance(model, AdaptedModel) or gauge.target_name is None:
        return
    own, before = gauge.target.zero_shot, gauge.baselines.target
    name = gauge.target_name
    if model.texts is not None and before is not None:
        yield _of_texts(gauge, model, own, before, n_images, name, on_target=True)
    elif own.images.captions is None:
        few, back = _few(own.images, n_images)
        yield Watched(name, few, back, len(own.prompts), {}, on_target=True, head=model.head)


def _of_texts(
    gauge: Gauge,
    model: Readable,
    material: TransferMaterial,
    before: TransferBaseline,
    n_images: int,
    name: str,
    *,
    on_target: bool = False,
) -> Watched:
    few, back = _few(material.images, n_images)
    untouched = texts_of(few, material.images, before.text_features)
    now = gauge.texts(model, material, few, before.text_features)
    texts: dict[Edited, Tensor] = {"untouched": untouched, "adapted": now}
    in_full = gauge.in_full and few.captions is None and few.truth is None
    return Watched(name, few, back, len(material.prompts), texts, on_target, in_full)


def _few(images: Images, n: int) -> tuple[Images, NDArray[np.int64]]:
    """At most n images in random order, class-balanced where they have classes; and the way back
    to their order."""
    draw = np.random.default_rng(ORDER)
    if n < len(images) and images.captions is None and images.truth is None:
        images = images.select(balanced_subset(images.labels, n, seed=ORDER))
    order = draw.permutation(len(images))[:n]
    return images.select(order), np.argsort(order)
