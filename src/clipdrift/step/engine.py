"""Chooses how the steps of a training are computed; the loop only asks for inputs and a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipdrift.backbone import n_tokens
from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.penalties.held import HeldNear
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.step.contrastive import AgainstTexts
from clipdrift.step.fast import Forward, compile_blocks, fast_kernels, pays_to_compile
from clipdrift.step.frozen_prefix import keep, trained_part
from clipdrift.step.objective import Inputs, Objective, cross_entropy, each_class_alone


class Engine:
    """Inputs and the loss of one training, as fast as equal results allow.

    precision: "float32" (torch's own kernels, untouched) or "bfloat16" (autocast). held: the
    penalties of the method, if it has any.
    """

    def __init__(
        self,
        model: AdaptedModel,
        images: Images,
        schedule: ScheduleSpec,
        precision: str,
        held: HeldNear | None = None,
    ) -> None:
        self.device = next(model.parameters()).device
        self._images, self._precision = images, precision
        self._shows_pixels = held is not None and held.sees_images
        cast = partial(autocast, self.device, precision)
        texts, positives = model.texts, model.spec.positives
        own = cross_entropy if images.several is None else each_class_alone
        criterion = own if texts is None else AgainstTexts(texts, cast, positives)
        self.objective = Objective(self._forward, held, cast, criterion)
        tower: Any = model.encoder.tower
        self._blocks = tower.encoder.layers
        self._compiled: Sequence[Forward] = ()
        to_see = _images_to_see(schedule, len(images))
        with self.running():
            self._kept = keep(
                model,
                images,
                flips=schedule.horizontal_flip,
                images_to_see=to_see,
                autocast=cast,
            )
        self._network = _network(model, kept=self._kept is not None)
        if (
            precision == "bfloat16"
            and not self._kept
            and not (held and held.sees_attention)  # read by hooks, which a compiler breaks at
            and pays_to_compile(self._blocks, n_tokens(tower), to_see)
        ):
            at_once = min(schedule.micro_batch or schedule.batch_size, schedule.batch_size)
            self._compiled = compile_blocks(self._blocks, at_once)

    def running(self) -> AbstractContextManager[None]:
        """Fast kernels while it is open; the model is as it was when it is left."""
        if self._precision != "bfloat16":
            return nullcontext()
        return fast_kernels(self._blocks, compiled=self._compiled)

    def inputs(self, chosen: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Inputs:
        """What `objective` takes for images at positions [B], mirrored where it says so."""
        if self._kept and not self._shows_pixels:
            return Inputs(self._kept.take(chosen, mirrored))
        batch = self._images.take(chosen)
        batch[mirrored] = batch[mirrored][:, :, ::-1]
        pixels = torch.from_numpy(batch).to(self.device, non_blocking=True)
        network = self._kept.take(chosen, mirrored) if self._kept else pixels
        return Inputs(network, pixels if self._shows_pixels else None)

    def _forward(self, inputs: Tensor) -> Tensor:
        """Logits [B, C]; embeddings [B, E] where they are held against texts."""
        with autocast(self.device, self._precision):
            return self._network(inputs)


def _network(model: AdaptedModel, *, kept: bool) -> Callable[[Tensor], Tensor]:
    encoder = model.encoder
    embed = trained_part(model) if kept else encoder
    if model.texts is not None:
        # Not by `forward`, which splits images where nothing trains, and so draws in other order.
        return embed if kept else lambda pixels: encoder.encode(encoder.normalise(pixels))
    return (lambda inputs: model.head(embed(inputs))) if kept else model


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 autocast for the forward pass, or nothing."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _images_to_see(schedule: ScheduleSpec, n_images: int) -> int:
    whole = schedule.epochs * n_images
    return min(whole, (schedule.max_steps or whole) * schedule.batch_size)
