"""What a training step lowers: cross-entropy, and the method's penalties with their weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipdrift.penalties.held import HeldNear


@dataclass(frozen=True)
class Inputs:
    """B images as a step takes them.

    network: [B, ...] what the network starts from: pixels, or kept activations. pixels: uint8
    [B, S, S, 3], where a penalty looks at them.
    """

    network: Tensor
    pixels: Tensor | None = None

    def __getitem__(self, part: slice) -> Inputs:
        return Inputs(self.network[part], None if self.pixels is None else self.pixels[part])


class Objective:
    """loss = mean cross-entropy + sum_k weight_k penalty_k, over some images."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        held: HeldNear | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """forward: `Inputs.network` -> logits [B, C]. autocast: precision of the penalties."""
        self._forward, self._held, self._autocast = forward, held, autocast

    @property
    def terms(self) -> int:
        """How many numbers a loss is made of: the cross-entropy, and each penalty."""
        return 1 + (len(self._held.specs) if self._held else 0)

    def __call__(self, inputs: Inputs, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss with its gradient, and its terms before their weights [1 + K] without one."""
        if self._held is None:
            loss = nn.functional.cross_entropy(self._forward(inputs.network).float(), target)
            return loss, loss.detach().reshape(1)
        with self._held.watching() as seen:
            logits = self._forward(inputs.network)
        loss = cross_entropy = nn.functional.cross_entropy(logits.float(), target)
        with self._autocast():
            values = self._held.values(seen, inputs.pixels)
        for spec, value in zip(self._held.specs, values, strict=True):
            if spec.weight:
                loss = loss + spec.weight * value
        return loss, torch.stack([cross_entropy, *values]).detach()


__all__ = ["Inputs", "Objective"]
