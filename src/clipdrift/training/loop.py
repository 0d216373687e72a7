"""The training loop: one, visible, the same for every method.

Image order, flips and head init are functions of (seed, epoch) and never of the method or the
rate, so matched runs see the same images in the same order. Training that was stopped after any
step goes on from its `TrainState` to the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipdrift.data.captions import Captions
from clipdrift.data.images import Images
from clipdrift.machine.devices import has_fused_adamw
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.penalties.held import HeldNear
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.engine import Engine
from clipdrift.step.micro_batches import MicroBatches
from clipdrift.step.objective import Inputs
from clipdrift.training.state import StateOf, TrainState, capture, restore, restore_generators

ORDER, FLIPS, NOISE, TEMPLATES, CAPTIONS = 0, 1, 2, 3, 4
"""Streams of the run's generator; a new use gets a new number so that the others do not move."""


EXPLODED_NATS = 1000.0
"""A mean loss that no training comes back from; guessing costs ln C, below 10."""


@dataclass(frozen=True)
class EpochDone:
    """What the loop says after an epoch. `state` is to be asked for before the next one.

    train_loss: mean loss over the epoch's images before penalties, in nats: cross-entropy, or the
    contrastive loss of each image's batch. penalties: mean of each before its weight, likewise.
    """

    epoch: int
    step: int
    train_loss: float
    seconds: float
    images: int
    state: StateOf
    penalties: dict[str, float]
    micro_batch: int | None = None
    """Images at a time where the batch did not fit into memory."""


class Diverged(Exception):
    """The loss is no longer a number, or beyond any that means something; says at which step."""

    def __init__(self, step: int, loss: float) -> None:
        what = f"above {EXPLODED_NATS:,.0f} nats" if math.isfinite(loss) else "not finite"
        super().__init__(f"loss {what} at step {step}")
        self.step = step


class Stopped(Exception):
    """Training was asked to stop and did so after a step, from which it can go on."""

    def __init__(self, state: TrainState) -> None:
        super().__init__(f"stopped after step {state.step}")
        self.state = state


def epoch_order(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Permutation of the training images in one epoch: a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch, ORDER]).permutation(n_images)


def epoch_flips(n_images: int, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Which images are mirrored in one epoch, by image and not by position in the order."""
    return np.random.default_rng([seed, epoch, FLIPS]).random(n_images) < 0.5


def epoch_prompts(
    labels: NDArray[np.int64], n_templates: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Number of the prompt that each image is held against in one epoch: label T + its template.

    The template is drawn by image and not by position in the order, as flips are.
    """
    drawn = np.random.default_rng([seed, epoch, TEMPLATES]).integers(n_templates, size=len(labels))
    return labels * n_templates + drawn


def epoch_captions(captions: Captions, seed: int, epoch: int) -> NDArray[np.int64]:
    """Number of the text that each image is held against in one epoch: one of its captions.

    Drawn by image and not by position in the order, as flips are.
    """
    n_images = int(captions.owner[-1]) + 1
    return captions.drawn(np.random.default_rng([seed, epoch, CAPTIONS]).random(n_images))


def order_fingerprint(n_images: int, schedule: ScheduleSpec, seed: int) -> str:
    """SHA-256 over the order and flips of every epoch: equal for matched runs."""
    digest = hashlib.sha256()
    for epoch in range(1, schedule.epochs + 1):
        digest.update(epoch_order(n_images, seed, epoch).tobytes())
        if schedule.horizontal_flip:
            digest.update(epoch_flips(n_images, seed, epoch).tobytes())
    return digest.hexdigest()


def rate_factor(step: int, total: int, fraction: float, warmup: str = "above_zero") -> float:
    """Linear warm-up, then cosine to zero: the factor on the peak rate at a step from 0.

    Args:
        fraction: of all steps, for the warm-up; one step at least unless it is 0.
        warmup: as in `ScheduleSpec`.

    >>> [round(rate_factor(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    >>> [round(rate_factor(s, 10, 0.29, "from_zero"), 2) for s in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    from_zero = warmup == "from_zero"
    whole = int(total * fraction) if from_zero else round(total * fraction)
    steps = max(1, whole) if fraction else 0
    if step < steps:
        return (step if from_zero else step + 1) / steps
    progress = (step - steps) / max(1, total - steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def train(
    model: AdaptedModel,
    images: Images,
    *,
    schedule: ScheduleSpec,
    learning_rate: float,
    head_rate: float,
    seed: int,
    precision: str,
    held: HeldNear | None = None,
    resume: TrainState | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochDone]:
    """Fine-tune; yields after every epoch, with the model in eval mode.

    Args:
        images: training images with labels in the range of the head, or of the class prompts.
        learning_rate: peak rate of everything that trains, the head's own is `head_rate`.
        precision: "float32" or "bfloat16" (autocast of the forward pass).
        held: the method's penalties; None without any.
        resume: go on from here, on a model built anew; its epoch is yielded even if it is complete.
        stop: asked after every step.

    Raises:
        Diverged: when the loss is not finite or has exploded.
        Stopped: when `stop` says so.
        TrainingError: if memory does not even hold a single image.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        list(model.parameter_groups(learning_rate, head_rate)),
        weight_decay=schedule.weight_decay,
        fused=has_fused_adamw(device),
    )
    if resume is not None:
        restore(model, optimiser, resume)
    step = resume.step if resume else 0
    scheduler = _rates(optimiser, schedule, len(images), step)
    started = time.perf_counter()
    engine = Engine(model, images, schedule, precision, held)
    clear = partial(optimiser.zero_grad, set_to_none=True)
    micro = MicroBatches(engine.objective, clear, schedule.micro_batch)
    for epoch in range(resume.epoch if resume else 1, schedule.epochs + 1):
        torch.manual_seed(_stream_seed(seed, epoch))  # dropout, the only global draw
        model.train()
        loss_sum, seen = torch.zeros(engine.objective.terms, device=device), 0
        if resume is not None and epoch == resume.epoch:
            restore_generators(resume, device)
            started -= resume.seconds
            loss_sum = resume.tensors["loss_sum"].to(device, copy=True).reshape(-1)
            seen = resume.images
        targets = epoch_targets(model, images, seed, epoch)
        with engine.running():
            for batch, target in _batches(
                images, targets, schedule, seed, epoch, engine, skip=seen
            ):
                if step == schedule.max_steps:
                    break
                terms = micro.backward(batch, target)  # the loss, then each penalty
                norm = nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
                if not terms[0] < EXPLODED_NATS or not torch.isfinite(norm):
                    raise Diverged(step + 1, float(terms[0] + norm * 0))
                optimiser.step()
                model.keep_bounds()
                scheduler.step()
                step += 1
                loss_sum += terms * len(target)
                seen += len(target)
                if stop():
                    seconds = time.perf_counter() - started
                    raise Stopped(capture(model, optimiser, loss_sum, epoch, step, seen, seconds))
        model.eval()
        model.read_texts()
        seconds = time.perf_counter() - started
        state = partial(capture, model, optimiser, loss_sum, epoch, step, seen, seconds)
        loss, *others = (total / seen for total in loss_sum.tolist())
        means = dict(zip(held.names if held else [], others, strict=True))
        halved = micro.size if micro.size != schedule.micro_batch else None
        yield EpochDone(epoch, step, loss, seconds, seen, state, means, halved)
        if step == schedule.max_steps:
            return
        started = time.perf_counter()


def _rates(
    optimiser: torch.optim.Optimizer, schedule: ScheduleSpec, n_images: int, step: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of rates, standing at `step`."""
    total = schedule.epochs * math.ceil(n_images / schedule.batch_size)
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda at: rate_factor(at, total, schedule.warmup_fraction, schedule.warmup),
        step - 1,
    )


def _stream_seed(seed: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, epoch, NOISE]).integers(2**31))


def epoch_targets(model: AdaptedModel, images: Images, seed: int, epoch: int) -> NDArray[Any]:
    """What each image is held against in one epoch: its labels, or the number of a text."""
    if model.texts is None:
        return images.labels if images.truth is None else images.truth
    if images.captions is not None:
        return epoch_captions(images.captions, seed, epoch)
    return epoch_prompts(images.labels, model.texts.n_templates, seed, epoch)


def _batches(
    images: Images,
    targets: NDArray[Any],
    schedule: ScheduleSpec,
    seed: int,
    epoch: int,
    engine: Engine,
    *,
    skip: int,
) -> Iterator[tuple[Inputs, Tensor]]:
    """What the engine takes and targets [B] in this epoch's order, mirrored where it says so.

    The first `skip` images are left out: those of the batches that were done before.
    """
    order = epoch_order(len(images), seed, epoch)
    flips = epoch_flips(len(images), seed, epoch) & schedule.horizontal_flip
    for start in range(skip, len(order), schedule.batch_size):
        chosen = order[start : start + schedule.batch_size]
        target = torch.from_numpy(targets[chosen])
        yield engine.inputs(chosen, flips[chosen]), target.to(engine.device, non_blocking=True)


def in_batches(images: Images, batch_size: int) -> Iterator[Tensor]:
    """uint8 [B, S, S, 3] in order, on the CPU."""
    for start in range(0, len(images), batch_size):
        yield torch.from_numpy(images.take(slice(start, start + batch_size)))
