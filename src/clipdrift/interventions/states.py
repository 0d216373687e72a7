"""Edited encoders on images, each from the last point up to which it equals one of the two ends.

Of a few images at a time the hidden state that enters every block is kept, of the untouched and of
the adapted encoder. An edited one goes on from the deepest of these states that its own weights
would have given, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clipdrift.backbone.encoder import n_tokens
from clipdrift.data.images import Images
from clipdrift.interventions.parts import Weights, stage
from clipdrift.interventions.walk import Stages, Walk

KEPT_BYTES = 2**28
"""States of a set that take no more are kept from one stage of edits to the next."""
Marks = tuple[frozenset[int], ...]
"""By stage, which objects the weights are: equal marks are equal weights."""


@dataclass(frozen=True)
class Batch:
    """A few images. states: by end, those that enter blocks 1 to L and the one behind the last."""

    pixels: Tensor
    states: list[list[Tensor]]


@dataclass
class States:
    """Images on their way through both ends, a few at a time.

    ends: weights of the adapted and of the untouched encoder, whole.
    """

    walk: Walk
    ends: Sequence[Weights]
    images: Images
    _kept: list[Batch] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept:
            yield from self._kept
            return
        staged = [self.walk.staged(end) for end in self.ends]
        for pixels in self.walk.batches(self.images):
            batch = Batch(pixels, [self.walk.states(end, pixels) for end in staged])
            if self._small:
                self._kept.append(batch)
            yield batch

    @property
    def _small(self) -> bool:
        tower = self.walk.encoder.tower
        each: int = n_tokens(tower) * tower.config.hidden_size  # type: ignore[union-attr, operator, assignment]
        total = 4 * each * (self.walk.n_blocks + 1) * len(self.ends) * len(self.images)
        return total <= KEPT_BYTES


def passes(edits: Sequence[Weights], ends: Sequence[Weights], n_blocks: int) -> int:
    """Blocks that `embeddings_of` runs for one image, beside those of both ends."""
    known = [_marks(end, n_blocks) for end in ends]
    shared = [
        max(_shared(marks, end) for end in known)
        for marks in {_marks(weights, n_blocks) for weights in edits}
    ]
    return sum(max(0, n_blocks + 1 - max(1, at)) for at in shared)


def _marks(weights: Weights, n_blocks: int) -> Marks:
    found: list[set[int]] = [set() for _ in range(n_blocks + 2)]
    for name, value in weights.items():
        found[stage(name, n_blocks)].add(id(value))
    return tuple(frozenset(one) for one in found)


def _shared(one: Marks, other: Marks) -> int:
    """Leading stages that are the same objects in both."""
    apart = (at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return next(apart, len(one))


@torch.inference_mode()
def embeddings_of(
    states: States, edits: Sequence[Weights], seen: Callable[[int], None] = lambda n: None
) -> list[Tensor]:
    """Embeddings of every image by every edited encoder.

    Args:
        states: of N images.
        edits: weights of whole encoders that share tensors with the ends, as objects.
        seen: told after some images how many they were.

    Returns:
        One [N, E] float32 on the CPU for each edit. Equal weights are passed once and give the very
        same tensor.
    """
    walk = states.walk
    marks = [_marks(weights, walk.n_blocks) for weights in edits]
    known = [_marks(end, walk.n_blocks) for end in states.ends]
    plan: dict[Marks, tuple[Stages, int, int]] = {}
    for mark, weights in zip(marks, edits, strict=True):
        shared = [_shared(mark, end) for end in known]
        plan[mark] = walk.staged(weights), shared.index(max(shared)), max(shared)
    found: dict[Marks, list[Tensor]] = {mark: [] for mark in plan}
    for batch in states:
        for mark, (staged, end_number, same) in plan.items():
            first = min(max(same, 1), walk.n_blocks + 1)
            kept = batch.states[end_number][first - 1]
            enters = kept if same else walk.enter(staged, batch.pixels)
            found[mark].append(walk.go_on(staged, enters, first).float().cpu())
        seen(len(batch.pixels))
    whole = {mark: torch.cat(pieces) for mark, pieces in found.items()}
    return [whole[mark] for mark in marks]
