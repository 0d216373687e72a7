"""Edited encoders on images, each from the last point up to which it equals one of the two ends.

Of a few images at a time the hidden state that enters every block is kept, of the untouched and of
the adapted encoder. An edited one goes on from the deepest of these states that its own weights
would have given, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from clipdrift.backbone import ImageEncoder
from clipdrift.backbone.encoder import CPU_TOKENS, n_tokens
from clipdrift.data.images import Images
from clipdrift.interventions.parts import Weights, stage
from clipdrift.probes.attention_given import attention_rule
from clipdrift.probes.attention_maps import has_cls_token, tower_blocks
from clipdrift.training.loop import in_batches

Stages = list[dict[str, Tensor]]
"""Weights by the stage in which they act, under the names that they have in its modules."""
GPU_TOKENS = 8 * CPU_TOKENS
"""Tokens at a time on a GPU: their states before all blocks of a ViT-L, twice, take 2.5 GB."""
Marks = tuple[frozenset[int], ...]
"""By stage, which objects the weights are: equal marks are equal weights."""


class Walk:
    """Passes of one plain encoder under weights that are lent to it, a stage at a time.

    Stage 0 makes tokens of images, 1 to L are the blocks, L + 1 makes embeddings of tokens: what
    transformers' CLIP and SigLIP vision towers do, in their order.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.blocks = tower_blocks(encoder.tower)
        self.n_blocks = len(self.blocks)
        self.n_heads: int = encoder.tower.config.num_attention_heads  # type: ignore[union-attr, assignment]
        self.has_cls = has_cls_token(encoder.tower)

    def staged(self, weights: Weights) -> Stages:
        """Weights of an encoder by stage."""
        found: Stages = [{} for _ in range(self.n_blocks + 2)]
        for name, value in weights.items():
            at = stage(name, self.n_blocks)
            inside = f"tower.encoder.layers.{at - 1}."
            found[at][name.removeprefix(inside)] = value
        return found

    def enter(self, weights: Stages, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> the hidden state that enters block 1, [B, T, D]."""
        tower = self.encoder.tower
        hidden = self._lent(tower.embeddings, "tower.embeddings.", weights[0],
                            self.encoder.normalise(pixels))  # fmt: skip
        if not self.has_cls:
            return hidden
        return self._lent(tower.pre_layrnorm, "tower.pre_layrnorm.", weights[0], hidden)

    def block(self, number: int, weights: Stages, hidden: Tensor) -> Tensor:
        """Through block `number`, from 1: [B, T, D] -> [B, T, D].

        Behind the last one only what is read of it: [B, 1, D] where that is the CLS token.
        """
        block, own = self.blocks[number - 1], weights[number]
        if number == self.n_blocks and self.has_cls:
            hidden = (hidden + self._attend(block, own, hidden)[0])[:, :1]
            within = self._lent(block.layer_norm2, "layer_norm2.", own, hidden)
            return hidden + self._lent(block.mlp, "mlp.", own, within)
        out = functional_call(block, own, (hidden, None))
        return out if isinstance(out, Tensor) else out[0]

    def pattern(self, number: int, weights: Stages, hidden: Tensor) -> Tensor:
        """Attention weights [B, H, T, T] of block `number` on the state that enters it."""
        block = self.blocks[number - 1]
        with attention_rule(block, lambda now: now):
            return self._attend(block, weights[number], hidden)[1]

    def _attend(
        self, block: Any, own: Mapping[str, Tensor], hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a block's attention adds to its tokens; and its weights, under a rule."""
        entering = self._lent(block.layer_norm1, "layer_norm1.", own, hidden)
        found: tuple[Tensor, Tensor] = functional_call(
            block.self_attn, _under("self_attn.", own), (entering,)
        )
        return found

    def leave(self, weights: Stages, hidden: Tensor) -> Tensor:
        """What left the last block -> embeddings [B, E]."""
        tower, own = self.encoder.tower, weights[-1]
        pooled = hidden[:, 0] if self.has_cls else hidden
        pooled = self._lent(tower.post_layernorm, "tower.post_layernorm.", own, pooled)
        if not self.has_cls:
            pooled = self._lent(tower.head, "tower.head.", own, pooled)
        return self._lent(self.encoder.projection, "projection.", own, pooled)

    def go_on(self, weights: Stages, hidden: Tensor, first: int) -> Tensor:
        """From the state that enters block `first` to embeddings."""
        for number in range(first, self.n_blocks + 1):
            hidden = self.block(number, weights, hidden)
        return self.leave(weights, hidden)

    def states(self, weights: Stages, pixels: Tensor) -> list[Tensor]:
        """The states that enter blocks 1 to L, and the one that leaves the last: L + 1 of them."""
        found = [self.enter(weights, pixels)]
        for number in range(1, self.n_blocks + 1):
            found.append(self.block(number, weights, found[-1]))
        return found

    @staticmethod
    def _lent(module: object, start: str, weights: Mapping[str, Tensor], value: Tensor) -> Tensor:
        out: Tensor = functional_call(module, _under(start, weights), (value,))  # type: ignore[arg-type]
        return out

    def batches(self, images: Images) -> Iterator[Tensor]:
        """uint8 [B, S, S, 3] of a few images, on the encoder's device."""
        device = self.encoder.mean.device
        at_once = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
        for pixels in in_batches(images, max(2, at_once // n_tokens(self.encoder.tower))):
            yield pixels.to(device)


def _under(start: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}


def passes(edits: Sequence[Weights], ends: Sequence[Weights], n_blocks: int) -> int:
    """Blocks that `embeddings_of` runs for one image, those of both ends included."""
    known = [_marks(end, n_blocks) for end in ends]
    shared = [
        max(_shared(marks, end) for end in known)
        for marks in {_marks(weights, n_blocks) for weights in edits}
    ]
    return len(ends) * n_blocks + sum(max(0, n_blocks + 1 - max(1, at)) for at in shared)


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
    walk: Walk,
    edits: Sequence[Weights],
    ends: Sequence[Weights],
    images: Images,
    seen: Callable[[int], None] = lambda n: None,
) -> list[Tensor]:
    """Embeddings of every image by every edited encoder.

    Args:
        edits: weights of whole encoders that share tensors with the ends, as objects.
        ends: encoders whose states are kept and gone on from.
        images: N of them.
        seen: told after some images how many they were.

    Returns:
        One [N, E] float32 on the CPU for each edit. Equal weights are passed once and give the very
        same tensor.
    """
    marks = [_marks(weights, walk.n_blocks) for weights in edits]
    known = [_marks(end, walk.n_blocks) for end in ends]
    staged_ends = [walk.staged(end) for end in ends]
    plan: dict[Marks, tuple[Stages, int, int]] = {}
    for mark, weights in zip(marks, edits, strict=True):
        shared = [_shared(mark, end) for end in known]
        plan[mark] = walk.staged(weights), shared.index(max(shared)), max(shared)
    found: dict[Marks, list[Tensor]] = {mark: [] for mark in plan}
    for pixels in walk.batches(images):
        states = [walk.states(end, pixels) for end in staged_ends]
        for mark, (staged, end_number, same) in plan.items():
            first = min(max(same, 1), walk.n_blocks + 1)
            enters = states[end_number][first - 1] if same else walk.enter(staged, pixels)
            found[mark].append(walk.go_on(staged, enters, first).float().cpu())
        seen(len(pixels))
    whole = {mark: torch.cat(pieces) for mark, pieces in found.items()}
    return [whole[mark] for mark in marks]
