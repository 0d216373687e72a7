"""The gradient of a batch, taken in parts where the whole does not fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from clipdrift.errors import Fault, TrainingError
from clipdrift.machine.memory import give_back, no_room_for_tensor
from clipdrift.step.contrastive import AgainstTexts
from clipdrift.step.feature_cache import Draws, cached_gradient
from clipdrift.step.objective import Inputs, Objective

LOG = logging.getLogger(__name__)


class MicroBatches:
    """Backward passes over batches, halved when memory runs out and from then on.

    The gradient is that of the unsplit batch up to rounding: a mean over images is the mean over
    parts, and a loss that compares all of a batch gets it by `feature_cache`. Dropout draws for
    each part anew, from where the generator stood before the batch: the draws depend on the size of
    the parts, not on where memory ran out.
    """

    def __init__(
        self, objective: Objective, clear: Callable[[], None], size: int | None = None
    ) -> None:
        """clear: removes all gradients. size: images at a time from the start."""
        self._objective, self._clear = objective, clear
        self.size = size
        """Images at a time; None while whole batches fit."""

    def backward(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Leave the gradient of the loss over all images in the parameters.

        Returns:
            [1 + K] the criterion, then each penalty before its weight.

        Raises:
            TrainingError: if memory does not even hold a single image.
        """
        draws = Draws(target.device)
        while True:
            self._clear()
            try:
                return self._parts(inputs, target)
            except (MemoryError, RuntimeError) as error:
                if not no_room_for_tensor(error):
                    raise
            # Here, and not in the handler, the failed pass and what it held are gone.
            give_back(target.device)
            self._halve(len(target))
            draws.put_back()

    def _parts(self, inputs: Inputs, target: Tensor) -> Tensor:
        n, size = len(target), self.size or len(target)
        criterion = self._objective.criterion
        if size < n and isinstance(criterion, AgainstTexts):
            return cached_gradient(self._objective, criterion, inputs, target, size)
        total = torch.zeros(self._objective.terms, device=target.device)
        for start in range(0, n, size):
            part = slice(start, start + size)
            loss, terms = self._objective(inputs[part], target[part])
            share = len(target[part]) / n
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += terms * share
        return total

    def _halve(self, n: int) -> None:
        at_once = min(self.size or n, n)
        if at_once == 1:
            raise TrainingError(
                Fault(
                    "memory",
                    "enough for the training step of one image",
                    "less",
                    "Use fewer workers, a smaller backbone or another device",
                )
            )
        self.size = (at_once + 1) // 2
        LOG.warning("out of memory: batches of %d are taken %d images at a time", n, self.size)
