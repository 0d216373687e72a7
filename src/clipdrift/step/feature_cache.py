"""The gradient of a loss that compares all of a batch, with a part of it in memory at a time.

A first pass keeps embeddings alone; the loss of all of them gives the gradient at each; a second
pass carries that on into the towers, part by part, on the same images and the same draws. Memory of
the towers is that of a part, whatever the size of the batch, and the price is one more forward
pass.

Reference: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited
setup" (GradCache), arXiv 2101.06983, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from clipdrift.machine.devices import generator_state, set_generator_state
from clipdrift.step.contrastive import AgainstTexts
from clipdrift.step.objective import Inputs, Objective

T = TypeVar("T")


class Draws:
    """Where torch's generators stand, which dropout draws from."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._cpu = device, torch.get_rng_state()
        self._own = generator_state(device)

    def put_back(self) -> None:
        """Let them draw again what they drew since."""
        torch.set_rng_state(self._cpu)
        if self._own is not None:
            set_generator_state(self._device, self._own)


class _Twice(Generic[T]):
    """A part of a batch on its way through a tower, which it goes twice with the same draws."""

    def __init__(self, way: Callable[[], T], device: torch.device) -> None:
        self._way, self._draws = way, Draws(device)
        with torch.no_grad():
            self.first = way()

    def again(self) -> T:
        """With its gradient."""
        self._draws.put_back()
        return self._way()


def cached_gradient(
    objective: Objective, criterion: AgainstTexts, inputs: Inputs, target: Tensor, size: int
) -> Tensor:
    """Leave in the parameters what the gradient of the whole batch adds, up to rounding.

    Args:
        size: images and texts in memory at a time, fewer than the batch.

    Returns:
        [1 + K] the criterion, then each penalty before its weight.
    """
    distinct, place = torch.unique(target, return_inverse=True)
    parts = [slice(start, start + size) for start in range(0, len(target), size)]
    images = [_Twice(partial(objective.forward, inputs[part]), target.device) for part in parts]
    texts = [_Twice(partial(criterion.read, one), target.device) for one in distinct.split(size)]
    image_rows = torch.cat([one.first[0] for one in images]).requires_grad_()
    text_rows = torch.cat([one.first for one in texts]).requires_grad_()
    after = Draws(target.device)
    own = criterion.compare(image_rows, text_rows, place, target)
    own.backward()  # type: ignore[no-untyped-call]
    terms = own.detach() * torch.eye(1, objective.terms, device=target.device)[0]
    for part, one, gradient in zip(parts, images, _rows(image_rows, size), strict=True):
        found, penalties = one.again()
        share = len(target[part]) / len(target)
        added = objective.weighted(share * found.new_zeros(()), [share * p for p in penalties])
        _carry_on(found, gradient, added)
        if penalties:
            terms[1:] += share * torch.stack(penalties).detach()
    for text, gradient in zip(texts, _rows(text_rows, size), strict=True):
        _carry_on(text.again(), gradient)
    after.put_back()
    return terms


def _rows(embeddings: Tensor, size: int) -> tuple[Tensor, ...]:
    """The gradient at each part."""
    assert embeddings.grad is not None
    return torch.split(embeddings.grad, size)


def _carry_on(found: Tensor, gradient: Tensor, added: Tensor | None = None) -> None:
    """From embeddings, and penalties beside them, into what trains; nothing where none does."""
    ends = [(found, gradient), *([] if added is None else [(added, torch.ones_like(added))])]
    ends = [(end, own) for end, own in ends if end.requires_grad]
    if ends:
        torch.autograd.backward([end for end, _ in ends], [own for _, own in ends])
