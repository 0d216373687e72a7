"""What a training step lowers: a loss of images, and the method's penalties with their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def each_class_alone(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over images and classes of the binary cross-entropy of sigmoid(logit), in float32.

    Args:
        logits: [B, C]. target: bool [B, C], of any number of classes each.
    """
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())


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
        self.criterion = criterion

    @property
    def terms(self) -> int:
        """How many numbers a loss is made of: the criterion, and each penalty."""
        return 1 + (len(self._held.specs) if self._held else 0)

    def __call__(self, inputs: Inputs, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss with its gradient, and its terms before their weights [1 + K] without one."""
        found, penalties = self.forward(inputs)
        own = self.criterion(found, target)
        return self.weighted(own, penalties), torch.stack([own, *penalties]).detach()

    def forward(self, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        """What the criterion is about, and each penalty before its weight."""
        if self._held is None:
            return self._forward(inputs.network), []
        with self._held.watching() as seen:
            found = self._forward(inputs.network)
        with self._autocast():
            return found, self._held.values(seen, inputs.pixels)

    def weighted(self, own: Tensor, penalties: Sequence[Tensor]) -> Tensor:
        """A criterion and penalties with their weights."""
        loss = own
        for spec, value in zip(self._held.specs if self._held else [], penalties, strict=True):
            if spec.weight:
                loss = loss + spec.weight * value
        return loss
