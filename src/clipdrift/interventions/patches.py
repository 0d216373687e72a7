"""Encoders that run with other attention than their own: the other end's, or one without meaning.

A pattern is the softmax of queries and keys, CLS-to-CLS weight included; values, output projection
and MLP stay the model's own. Does the loss lie in where a model looks, or in what it does with what
it sees? Shuffled, uniform and other images' patterns say how much hangs on attention at all.

References: Jain & Wallace (2019), "Attention is not Explanation", section 4.2.1, for shuffled
weights; Wiegreffe & Pinter (2019), "Attention is not not Explanation", section 3.2, for uniform
ones. Both change the attention of one recurrent layer; here it is one block, or every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clipdrift.data.images import Images
from clipdrift.interventions.parts import SIDES, other
from clipdrift.interventions.walk import Stages, Walk
from clipdrift.probes.attention_given import Rule, attention_rule
from clipdrift.records.located import ATTENTION, Edited, EditName

SHUFFLES = 1_000_003
"""Multiplier that gives every block a stream of random numbers of its own."""


@dataclass(frozen=True)
class Patch:
    """A model (`of`) that runs with another attention pattern in one block, or in all (None)."""

    edit: EditName
    of: Edited
    block: int | None


def patches(n_blocks: int) -> list[Patch]:
    """Every pattern in every block by itself and in all together, of both models."""
    blocks = [None, *range(1, n_blocks + 1)]
    return [Patch(edit, of, block) for of in SIDES for edit in ATTENTION for block in blocks]


def patch_passes(n_blocks: int) -> int:
    """Blocks that `patched` runs for one image."""
    each = sum(n_blocks + 1 - block for block in range(1, n_blocks + 1)) + n_blocks
    return 2 * (2 + len(ATTENTION)) * n_blocks + 2 * len(ATTENTION) * (each - n_blocks)


@torch.inference_mode()
def patched(
    walk: Walk,
    adapted: Stages,
    untouched: Stages,
    images: Images,
    *,
    seed: int = 0,
    seen: Callable[[int], None] = lambda n: None,
) -> dict[Patch, Tensor]:
    """Embeddings [N, E] of every image under every patch; float32 on the CPU.

    The other image of "attention_other_image" is the next of those that pass together, so images
    should come in no order.

    Args:
        seed: of the shuffles.
    """
    found: dict[Patch, list[Tensor]] = {patch: [] for patch in patches(walk.n_blocks)}
    weights: dict[Edited, Stages] = {"adapted": adapted, "untouched": untouched}
    for n, pixels in enumerate(walk.batches(images)):
        draw = torch.Generator().manual_seed(SHUFFLES * seed + n)
        for patch, embedded in _of_batch(walk, weights, pixels, draw):
            found[patch].append(embedded.float().cpu())
        seen(len(pixels))
    return {patch: torch.cat(pieces) for patch, pieces in found.items()}


def _of_batch(
    walk: Walk, weights: dict[Edited, Stages], pixels: Tensor, draw: torch.Generator
) -> Iterator[tuple[Patch, Tensor]]:
    states = {of: walk.states(own, pixels) for of, own in weights.items()}
    through = {(edit, of): states[of][0] for of in weights for edit in ATTENTION}
    for number in range(1, walk.n_blocks + 1):
        own = {of: pattern(walk, number, weights[of], states[of][number - 1]) for of in weights}
        for of, edit in ((of, edit) for of in weights for edit in ATTENTION):
            rule = _rule(edit, own[of], own[other(of)], draw)
            hidden = with_rule(walk, number, weights[of], states[of][number - 1], rule)
            alone = walk.go_on(weights[of], hidden, number + 1)
            yield Patch(edit, of, number), alone
            key = (edit, of)
            through[key] = with_rule(walk, number, weights[of], through[key], rule)
    for (edit, of), hidden in through.items():
        yield Patch(edit, of, None), walk.leave(weights[of], hidden)


def pattern(walk: Walk, number: int, weights: Stages, hidden: Tensor) -> Tensor:
    """Attention weights [B, H, T, T] of block `number` on the state that enters it."""
    kept: list[Tensor] = []

    def keep(own: Tensor) -> Tensor:
        kept.append(own)
        return own

    with_rule(walk, number, weights, hidden, keep)
    return kept[0]


def with_rule(walk: Walk, number: int, weights: Stages, hidden: Tensor, rule: Rule) -> Tensor:
    """Through one block, [B, T, D] -> [B, T, D], with what the rule makes of its attention."""
    with attention_rule(walk.blocks[number - 1], rule):
        return walk.block(number, weights, hidden)


def _rule(edit: EditName, own: Tensor, other: Tensor, draw: torch.Generator) -> Rule:
    """own, other: patterns [B, H, T, T] of the model itself and of the other end."""
    if edit == "attention_other_model":
        return lambda now: other
    if edit == "attention_other_image":
        rolled = own.roll(1, dims=0)
        return lambda now: rolled
    if edit == "attention_uniform":
        return lambda now: torch.full_like(now, 1 / now.shape[-1])
    order = torch.rand(own.shape, generator=draw).argsort(dim=-1).to(own.device)
    return lambda now: now.gather(-1, order)
