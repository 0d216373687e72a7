"""Edited encoders: parts put back or moved alone, and beside each changes of the same size.

An edit is a whole set of weights in which all that was not edited is the very object of one of the
ends: so what can be reused of a pass is seen from the weights themselves (`walk`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from clipdrift.interventions.parts import INSIDE, Ends, Part, Weights, norm, parts
from clipdrift.records.located import Edited, EditName, PartKind

KINDS = frozenset(INSIDE.values())


@dataclass(frozen=True, eq=False)
class Edit:
    """One edited encoder.

    edit: what was done, see `records.located.EDITS`. of: the model that was edited.
    beside: None, or which control of the edit it is: `random` or `elsewhere`.
    """

    edit: EditName
    of: Edited
    block: int | None
    kind: PartKind
    weights: Weights
    moved_rel: float
    beside: str | None = None
    draw: int = 0

    @property
    def place(self) -> tuple[EditName, Edited, int | None, PartKind]:
        """What an edit and its controls share."""
        return (self.edit, self.of, self.block, self.kind)


@dataclass
class Editor:
    """Makes the edits of one fine-tuned encoder.

    draws: random changes beside each edit. elsewhere: also a change in another block. seed: of
    both.
    """

    ends: Ends
    n_blocks: int
    draws: int = 1
    elsewhere: bool = False
    seed: int = 0
    _noise: dict[tuple[str, int, Edited], Tensor] = field(default_factory=dict)

    @cached_property
    def parts(self) -> list[Part]:
        """Every part of the encoder."""
        return parts(self.ends.untouched, self.n_blocks)

    def edits(self, inside: Collection[int], *, controls: bool = True) -> Iterator[Edit]:
        """Of all blocks, what lies before and behind them, and cumulative.

        Args:
            inside: blocks of which each kind of module is edited too.
            controls: whether each is followed by its controls.
        """
        yield self._edit("revert", Part(None, "all", frozenset(self.ends.untouched)))
        yield self._edit("graft", Part(None, "all", frozenset(self.ends.untouched)))
        yield from self._of((part for part in self.parts if part.kind not in KINDS), controls)
        for block in range(1, self.n_blocks + 1):
            above, below = self._cumulative(block)
            yield self._edit("revert_above", above)
            yield self._edit("revert_below", below)
        yield from self.edits_inside(inside, controls=controls)

    def edits_inside(self, blocks: Collection[int], *, controls: bool = True) -> Iterator[Edit]:
        """Of the kinds of module in some blocks."""
        own = (part for part in self.parts if part.kind in KINDS and part.block in blocks)
        yield from self._of(own, controls)

    def _of(self, some: Iterable[Part], controls: bool) -> Iterator[Edit]:
        for part in some:
            yield self._edit("revert", part)
            yield self._edit("graft", part)
            if controls and part.names & self.ends.moved:
                yield from self._controls(part)

    def _edit(self, name: EditName, part: Part) -> Edit:
        """Revert: the adapted model with a part untouched. Graft: the other way round."""
        base, other = self.ends.adapted, self.ends.untouched
        if name == "graft":
            base, other = other, base
        weights = {**base, **{own: other[own] for own in part.names}}
        of: Edited = "untouched" if name == "graft" else "adapted"
        return Edit(name, of, part.block, part.kind, weights, self.ends.moved_rel(part))

    def _cumulative(self, block: int) -> tuple[Part, Part]:
        """A block with all above it, projection included; with all below it and the embeddings."""
        above: frozenset[str] = frozenset()
        below = above
        for part in self.parts:
            if part.kind == "projection" or (part.kind == "block" and (part.block or 0) >= block):
                above |= part.names
            if part.kind == "embeddings" or (part.kind == "block" and (part.block or 0) <= block):
                below |= part.names
        return Part(block, "block", above), Part(block, "block", below)

    def _controls(self, part: Part) -> Iterator[Edit]:
        """Changes of the size of the part's own: drawn, and along another block's movement."""
        size = self.ends.moved_rel(part)
        sides: tuple[tuple[EditName, Edited], ...] = (("revert", "adapted"), ("graft", "untouched"))
        other = self._elsewhere(part) if self.elsewhere else None
        for name, of in sides:
            base = self.ends.adapted if of == "adapted" else self.ends.untouched
            for draw in range(self.draws):
                moved = {own: self._drawn(own, draw, of) for own in part.names & self.ends.moved}
                weights = {**base, **moved}
                yield Edit(name, of, part.block, part.kind, weights, size, "random", draw)
            if other is not None:
                step = self._step(part, other, -1.0 if of == "adapted" else 1.0)
                moved = {own: base[own] + change for own, change in step.items()}
                weights = {**base, **moved}
                yield Edit(name, of, part.block, part.kind, weights, size, "elsewhere")

    def _drawn(self, name: str, draw: int, of: Edited) -> Tensor:
        """A tensor plus normal noise of the norm of its movement, the same for every part."""
        if (name, draw, of) not in self._noise:
            before, after = self.ends.untouched[name], self.ends.adapted[name]
            key = hashlib.sha256(f"{self.seed} {draw} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
            noise = torch.randn(before.shape, generator=generator).to(before.device)
            noise *= (after - before).norm() / noise.norm()
            base = after if of == "adapted" else before
            self._noise[name, draw, of] = base + noise
        return self._noise[name, draw, of]

    def _elsewhere(self, part: Part) -> Part | None:
        """The same kind in another block that moved, drawn; None where there is none."""
        others = [
            one
            for one in self.parts
            if one.kind == part.kind and one.block != part.block and one.names & self.ends.moved
        ]
        if not others or part.block is None:
            return None
        key = hashlib.sha256(f"{self.seed} {part.block}".encode()).digest()
        return others[key[0] % len(others)]

    def _step(self, part: Part, other: Part, sign: float) -> dict[str, Tensor]:
        """The movement of another part, brought to the length of this one's."""
        apart = {
            one: {n: self.ends.adapted[n] - self.ends.untouched[n] for n in sorted(one.names)}
            for one in (part, other)
        }
        own, there = (norm(apart[one].values()) for one in (part, other))
        moved = other.names & self.ends.moved
        return {name: sign * own / there * apart[other][name] for name in moved}
