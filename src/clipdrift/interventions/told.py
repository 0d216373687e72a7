"""What edits of a model changed on one set, told as rows: each beside its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipdrift.interventions.parts import SIDES
from clipdrift.interventions.watched import Watched
from clipdrift.reading.baseline import Scored
from clipdrift.reading.in_full import ridge_accuracy
from clipdrift.reading.model import transfer_reading
from clipdrift.reading.target import score_of
from clipdrift.records.correct import Correct
from clipdrift.records.located import Edited, EditName, EditRow, PartKind

Floats = NDArray[np.float64]
Place = tuple[int | None, str]
"""Block and kind of a part."""
LOOKED_INTO = 2
"""Blocks, at most, whose kinds of module are edited where not those of all are."""


class Key(NamedTuple):
    """Which edited model was read: an edit, or one of its controls."""

    edit: EditName
    of: Edited
    block: int | None
    kind: PartKind
    beside: str | None = None
    draw: int = 0
    head: int | None = None

    @property
    def place(self) -> tuple[EditName, Edited, int | None, PartKind]:
        """What an edit and its controls share."""
        return self[:4]


@dataclass(frozen=True)
class Read:
    """What was read of one edited model on one set. ridge: accuracy of a read-out, where asked."""

    scored: Scored
    ridge: float | None = None


Found = dict[Key, Read]


def plain(of: Edited) -> Key:
    """A model as it is."""
    return Key("none", of, None, "all")


def read_set(one: Watched, features: Tensor, text: Edited, *, full: bool) -> Read:
    """A set from embeddings [N, E]. full: with the read-out, of a set that is read in full."""
    ridge = None
    if full and one.in_full:  # which half an image is in hangs on their order
        ridge = ridge_accuracy(features[torch.from_numpy(one.back)], one.images.labels[one.back])
    return Read(one.scored(features, text), ridge)


@dataclass(frozen=True)
class Carried:
    """Image by image, in percentage points: what a set of classes lost, what parts carry of it.

    lost: [N] right by the untouched model less by the adapted one, 0 or +-100. parts: [N] each,
    half of what putting the part back changes less half of what moving it alone does. above: what
    putting it back changes less what random changes of its size do, a mean; None where it did not
    move.
    """

    lost: Floats
    parts: dict[Place, Floats]
    above: dict[Place, float | None]


class Told:
    """The rows of one set.

    Args:
        moved: place of an edit -> how far its part moved, relative to the part's norm.
    """

    def __init__(
        self,
        one: Watched,
        found: Found,
        moved: Mapping[tuple[EditName, Edited, int | None, PartKind], float],
    ) -> None:
        self.one, self.found, self.moved = one, found, moved
        self.controls: dict[tuple[object, ...], list[float]] = {}
        for key, read in found.items():
            if key.beside is not None:
                beside = self.controls.setdefault((*key.place, key.beside), [])
                beside.append(self._change(key, read))

    @property
    def by_image(self) -> bool:
        """Whether single images are right or wrong."""
        return isinstance(self.found[plain("adapted")].scored, Correct)

    def rows(self) -> list[EditRow]:
        return [self._row(key, read) for key, read in self.found.items() if key.beside is None]

    def _row(self, key: Key, read: Read) -> EditRow:
        before, score = self.found[plain("untouched")], score_of(read.scored)
        retention = gone = misaligned = None
        if not self.one.on_target:
            n = self.one.n_classes
            compared = transfer_reading(read.scored, before.scored, self.one.images, n)
            retention = compared.retention_pct
        if read.ridge is not None and before.ridge is not None:
            gone = 100 * (before.ridge - read.ridge)
            misaligned = 100 * (score_of(before.scored) - score) - gone
        return EditRow(
            edit=key.edit,
            of=key.of,
            block=key.block,
            kind=key.kind,
            head=key.head,
            dataset=self.one.name,
            on_target=self.one.on_target,
            score=score,
            change_pp=self._change(key, read),
            control_pp=self._control(key, "random"),
            elsewhere_pp=self._control(key, "elsewhere"),
            retention_pct=retention,
            gone_pp=gone,
            misaligned_pp=misaligned,
            moved_rel=self.moved.get(key.place),
        )

    def _change(self, key: Key, read: Read) -> float:
        return 100 * (score_of(read.scored) - score_of(self.found[plain(key.of)].scored))

    def _control(self, key: Key, beside: str) -> float | None:
        """Mean change by the controls of an edit; None where it has none."""
        changes = self.controls.get((*key.place, beside))
        return float(np.mean(changes)) if changes else None

    def may_carry(self) -> list[int]:
        """Blocks worth a look inside: they carry at least half of what the first part does."""
        adapted, untouched = (score_of(self.found[plain(of)].scored) for of in SIDES)
        carried = {
            (key.block, key.kind): self._change(key, read)
            - self._change(
                alone := Key("graft", "untouched", key.block, key.kind), self.found[alone]
            )
            for key, read in self.found.items()
            if key.edit == "revert" and key.beside is None and key.kind != "all"
        }
        enough = max(carried.values(), default=0.0) / 2
        if untouched <= adapted or enough <= 0:
            return []
        blocks = [at for at, value in carried.items() if at[1] == "block" and value >= enough]
        blocks.sort(key=lambda at: -carried[at])
        return [block for block, _ in blocks[:LOOKED_INTO] if block is not None]

    def carried(self) -> Carried:
        """Of a set of classes, image by image."""
        adapted, untouched = (_hits(self.found[plain(of)]) for of in SIDES)
        parts: dict[Place, Floats] = {}
        above: dict[Place, float | None] = {}
        for key, read in self.found.items():
            if key.edit != "revert" or key.beside is not None or key.kind == "all":
                continue
            at, control = (key.block, key.kind), self._control(key, "random")
            back = _hits(read) - adapted
            alone = _hits(self.found[Key("graft", "untouched", *at)]) - untouched
            parts[at] = (back - alone) / 2
            above[at] = None if control is None else float(back.mean()) - control
        return Carried(untouched - adapted, parts, above)


def _hits(read: Read) -> Floats:
    assert isinstance(read.scored, Correct)
    return 100 * read.scored.hits.astype(np.float64)
