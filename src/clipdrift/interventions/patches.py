"""Encoders that run with attention or states other than their own: the other end's, or meaningless.

A pattern is the softmax of queries and keys, CLS-to-CLS weight included; values, output projection
and MLP stay the model's own. Does the loss lie in where a model looks, or in what it does with what
it sees? Shuffled, uniform and other images' patterns say how much hangs on attention at all. A
state is what leaves a block; put in whole, it makes `revert_below` of weights, so only its CLS
token alone and its patch tokens alone are put in.

References: Jain & Wallace (2019), "Attention is not Explanation", section 4.2.1, for shuffled
weights; Wiegreffe & Pinter (2019), "Attention is not not Explanation", section 3.2, for uniform
ones. Both change the attention of one recurrent layer; here it is one block, or every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clipdrift.interventions.parts import SIDES, other
from clipdrift.interventions.states import States
from clipdrift.interventions.walk import Stages, Walk
from clipdrift.probes.attention_given import Rule, attention_rule
from clipdrift.records.located import ABLATIONS, STATES, Edited, EditName, PartKind, What

DRAWS = (1_000_003, 10_007, 2)
"""Multipliers of seed, batch and block: every shuffle has a stream of random numbers of its own."""


@dataclass(frozen=True)
class Patch:
    """A model (`of`) that runs with another attention pattern in one block, or in all (None).

    head: from 1, where the pattern of one head alone is replaced. kind: `attention`; or with the
    edit `state_other_model` the tokens whose state behind the block is the other model's.
    """

    edit: EditName
    of: Edited
    block: int | None
    kind: PartKind = "attention"
    head: int | None = None


def patches(walk: Walk, what: Iterable[What], *, each_block: bool = True) -> list[Patch]:
    """All that is asked for, of both models.

    Args:
        each_block: block by block too, not only in all of them together.
    """
    asked, blocks = set(what), range(1, walk.n_blocks + 1)
    found: list[Patch] = []
    patterns: list[EditName] = ["attention_other_model"] if "attention" in asked else []
    patterns += ABLATIONS if "ablations" in asked else ()
    for of in SIDES:
        found += [Patch(edit, of, block) for edit in patterns for block in (None, *blocks)]
        if "heads" in asked:
            found += [
                Patch("attention_other_model", of, block, head=head)
                for block in blocks
                for head in range(1, walk.n_heads + 1)
            ]
        if "states" in asked and walk.has_cls:  # behind the last block CLS alone is read
            found += [
                Patch("state_other_model", of, b, kind) for kind in STATES for b in blocks[:-1]
            ]
    return [patch for patch in found if each_block or patch.block is None]


def patch_passes(wanted: Sequence[Patch], n_blocks: int) -> int:
    """About as many blocks as `patched` runs for one image, beside those of both ends."""
    found = n_blocks if wanted else 0  # the patterns of both ends, at half the price of a block
    for patch in wanted:
        found += n_blocks + 1 - (patch.block or 1) - (patch.edit == "state_other_model")
    return found


@torch.inference_mode()
def patched(
    states: States,
    wanted: Sequence[Patch],
    *,
    seed: int = 0,
    seen: Callable[[int], None] = lambda n: None,
) -> dict[Patch, Tensor]:
    """Embeddings [N, E] of every image under every patch; float32 on the CPU.

    The other image of "attention_other_image" is the next of those that pass together, so images
    should come in no order.

    Args:
        states: of the images at both ends.
        seed: of the shuffles.
    """
    found: dict[Patch, list[Tensor]] = {patch: [] for patch in wanted}
    walk = states.walk
    weights = dict(zip(SIDES, map(walk.staged, states.ends), strict=True))
    for n, batch in enumerate(states):
        of = dict(zip(SIDES, batch.states, strict=True))
        patching = _Patching(walk, weights, of, DRAWS[0] * seed + DRAWS[1] * n)
        for patch in wanted:
            found[patch].append(patching.embedded(patch).float().cpu())
        seen(len(batch.pixels))
    return {patch: torch.cat(pieces) for patch, pieces in found.items()}


@dataclass
class _Patching:
    """A few images on their way: the states of both ends, and the patterns made of them."""

    walk: Walk
    weights: dict[Edited, Stages]
    states: dict[Edited, list[Tensor]]
    seed: int
    _patterns: dict[tuple[Edited, int], Tensor] = field(default_factory=dict)

    def embedded(self, patch: Patch) -> Tensor:
        """Embeddings [B, E] under a patch."""
        weights, states = self.weights[patch.of], self.states[patch.of]
        if patch.edit == "state_other_model":
            assert patch.block is not None
            own, given = states[patch.block], self.states[other(patch.of)][patch.block]
            cls, rest = (given, own) if patch.kind == "cls" else (own, given)
            mixed = torch.cat([cls[:, :1], rest[:, 1:]], dim=1)
            return self.walk.go_on(weights, mixed, patch.block + 1)
        blocks = [patch.block] if patch.block else range(1, self.walk.n_blocks + 1)
        hidden = states[blocks[0] - 1]
        for number in blocks:
            hidden = with_rule(self.walk, number, weights, hidden, self._rule(patch, number))
        return self.walk.go_on(weights, hidden, blocks[-1] + 1)

    def _rule(self, patch: Patch, number: int) -> Rule:
        if patch.edit == "attention_uniform":
            return lambda now: torch.full_like(now, 1 / now.shape[-1])
        if patch.edit == "attention_shuffled":
            return self._shuffled(patch.of, number)
        if patch.edit == "attention_other_image":
            rolled = self._pattern(patch.of, number).roll(1, dims=0)
            return lambda now: rolled
        given, head = self._pattern(other(patch.of), number), patch.head
        if head is None:
            return lambda now: given
        return lambda now: torch.cat(
            [now[:, : head - 1], given[:, head - 1 : head], now[:, head:]], 1
        )

    def _shuffled(self, of: Edited, number: int) -> Rule:
        draw = torch.Generator().manual_seed(self.seed + DRAWS[2] * number + (of == "adapted"))

        def shuffled(now: Tensor) -> Tensor:
            order = torch.rand(now.shape, generator=draw).argsort(dim=-1)
            return now.gather(-1, order.to(now.device))

        return shuffled

    def _pattern(self, of: Edited, number: int) -> Tensor:
        """Of a model's own unedited pass."""
        if (of, number) not in self._patterns:
            entering = self.states[of][number - 1]
            self._patterns[of, number] = self.walk.pattern(number, self.weights[of], entering)
        return self._patterns[of, number]


def with_rule(walk: Walk, number: int, weights: Stages, hidden: Tensor, rule: Rule) -> Tensor:
    """Through one block as `Walk.block`, with what the rule makes of its attention."""
    with attention_rule(walk.blocks[number - 1], rule):
        return walk.block(number, weights, hidden)
