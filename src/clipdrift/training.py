"""The training loop: one, visible, the same for every method.

Image order, flips and head init are functions of (seed, epoch) and never of the method or the
rate, so matched runs see the same images in the same order.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipdrift.backbone import ImageEncoder
from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.spec.parts import ScheduleSpec

ORDER, FLIPS, NOISE = 0, 1, 2
"""Streams of the run's generator; a new use gets a new number so that the others do not move."""


@dataclass(frozen=True)
class EpochDone:
    """What the loop says after an epoch."""

    epoch: int
    step: int
    train_loss: float
    seconds: float
    images: int


class Diverged(Exception):
    """The loss is no longer a number; says at which step."""

    def __init__(self, step: int) -> None:
        super().__init__(f"loss not finite at step {step}")
        self.step = step


def epoch_order(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Permutation of the training images in one epoch: a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch, ORDER]).permutation(n_images)


def epoch_flips(n_images: int, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Which images are mirrored in one epoch, by image and not by position in the order."""
    return np.random.default_rng([seed, epoch, FLIPS]).random(n_images) < 0.5


def order_fingerprint(n_images: int, schedule: ScheduleSpec, seed: int) -> str:
    """SHA-256 over the order and flips of every epoch: equal for matched runs."""
    digest = hashlib.sha256()
    for epoch in range(1, schedule.epochs + 1):
        digest.update(epoch_order(n_images, seed, epoch).tobytes())
        if schedule.horizontal_flip:
            digest.update(epoch_flips(n_images, seed, epoch).tobytes())
    return digest.hexdigest()


def rate_factor(step: int, total: int, warmup_fraction: float) -> float:
    """Linear warm-up, then cosine to zero: the factor on the peak rate at a step from 0.

    >>> [round(rate_factor(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = max(1, round(total * warmup_fraction)) if warmup_fraction else 0
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 autocast for the forward pass, or nothing."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def train(
    model: AdaptedModel,
    images: Images,
    *,
    schedule: ScheduleSpec,
    learning_rate: float,
    head_rate: float,
    seed: int,
    precision: str,
) -> Iterator[EpochDone]:
    """Fine-tune; yields after every epoch, with the model in eval mode.

    Args:
        images: training images with labels in the range of the head.
        learning_rate: peak rate of everything that trains, the head's own is `head_rate`.
        precision: "float32" or "bfloat16" (autocast of the forward pass).

    Raises:
        Diverged: when the loss is not finite.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        list(model.parameter_groups(learning_rate, head_rate)),
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    total = schedule.epochs * math.ceil(len(images) / schedule.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_factor(step, total, schedule.warmup_fraction)
    )
    step = 0
    for epoch in range(1, schedule.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(_stream_seed(seed, epoch))  # dropout, the only global draw
        model.train()
        loss_sum, seen = torch.zeros((), device=device), 0
        for batch, target in _batches(images, schedule, seed, epoch, device):
            with autocast(device, precision):
                logits = model(batch)
            loss = nn.functional.cross_entropy(logits.float(), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                raise Diverged(step + 1)
            optimiser.step()
            scheduler.step()
            step += 1
            loss_sum += loss.detach() * len(target)
            seen += len(target)
            if step == schedule.max_steps:
                break
        model.eval()
        yield EpochDone(epoch, step, float(loss_sum) / seen, time.perf_counter() - started, seen)
        if step == schedule.max_steps:
            return


def _stream_seed(seed: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, epoch, NOISE]).integers(2**31))


def _batches(
    images: Images,
    schedule: ScheduleSpec,
    seed: int,
    epoch: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 [B, S, S, 3] and labels [B] in this epoch's order, mirrored where it says so."""
    order = epoch_order(len(images), seed, epoch)
    flips = epoch_flips(len(images), seed, epoch)
    for start in range(0, len(order), schedule.batch_size):
        chosen = order[start : start + schedule.batch_size]
        batch = images.take(chosen)
        if schedule.horizontal_flip:
            mirrored = flips[chosen]
            batch[mirrored] = batch[mirrored][:, :, ::-1]
        yield (
            torch.from_numpy(batch).to(device, non_blocking=True),
            torch.from_numpy(images.labels[chosen]).to(device, non_blocking=True),
        )


@torch.inference_mode()
def embed(encoder: ImageEncoder, images: Images, *, batch_size: int) -> Tensor:
    """Embeddings [N, E] in float32, in the order of the images."""
    device = encoder.mean.device
    return torch.cat([encoder(batch.to(device)) for batch in in_batches(images, batch_size)])


def in_batches(images: Images, batch_size: int) -> Iterator[Tensor]:
    """uint8 [B, S, S, 3] in order, on the CPU."""
    for start in range(0, len(images), batch_size):
        yield torch.from_numpy(images.take(slice(start, start + batch_size)))
