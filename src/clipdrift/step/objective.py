"""What a training step lowers: a loss of images, and the method's penalties with their weights."""

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


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over images: logits [B, C], labels [B] -> a scalar, in float32."""
    return nn.functional.cross_entropy(logits.float(), target)


class Objective:
    """criterion + sum_k weight_k penalty_k, over some images."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        held: HeldNear | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        criterion: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ) -> None:
        """forward: `Inputs.network` -> what `criterion` holds against the target [B].

        autocast: precision of the penalties.
        """
        self._forward, self._held, self._autocast = forward, held, autocast
        self._criterion = criterion

    @property
    def terms(self) -> int:
        """How many numbers a loss is made of: the criterion, and each penalty."""
        return 1 + (len(self._held.specs) if self._held else 0)

    @property
    def splits(self) -> bool:
        """Whether it is a mean over images, so that parts of a batch add up to the batch."""
        return self._criterion is cross_entropy

    def __call__(self, inputs: Inputs, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss with its gradient, and its terms before their weights [1 + K] without one."""
        if self._held is None:
            loss = self._criterion(self._forward(inputs.network), target)
            return loss, loss.detach().reshape(1)
        with self._held.watching() as seen:
            found = self._forward(inputs.network)
        loss = own = self._criterion(found, target)
        with self._autocast():
            values = self._held.values(seen, inputs.pixels)
        for spec, value in zip(self._held.specs, values, strict=True):
            if spec.weight:
                loss = loss + spec.weight * value
        return loss, torch.stack([own, *values]).detach()


__all__ = ["Inputs", "Objective", "cross_entropy"]
