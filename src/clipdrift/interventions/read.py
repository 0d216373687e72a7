"""Every edit of one model, read on the same images: what it changes, beside its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.errors import Fault, MethodError, SpecError
from clipdrift.interventions.edits import Edit, Editor
from clipdrift.interventions.parts import SIDES, Ends, ends, other
from clipdrift.interventions.patches import patch_passes, patched
from clipdrift.interventions.told import Carried, Found, Key, Read, Told, plain, read_set
from clipdrift.interventions.walk import Walk, embeddings_of, passes
from clipdrift.interventions.watched import Watched, watched
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import Readable
from clipdrift.records.located import Edited, EditName, EditRow

Tell = Callable[[float], None]
"""Told which share of the work is done, 0 to 1."""
MAX_DRAWS, MAX_IMAGES = 100, 1_000_000

What = Literal["weights", "attention"]
WHAT: tuple[What, ...] = ("weights", "attention")


@dataclass(frozen=True)
class Asked:
    """What to edit, and on how much to read it.

    what: `weights`, parts put back and moved alone; `attention`, patterns replaced. draws: random
    changes beside each edit of weights. n_images: of each set, at most. seed: of all that is drawn.
    """

    what: tuple[What, ...] = WHAT
    draws: int = 2
    n_images: int = 200
    seed: int = 0

    def faults(self) -> Iterator[Fault]:
        """Values that make no sense."""
        if not self.what or set(self.what) - set(WHAT):
            got = ", ".join(self.what) or "nothing"
            yield Fault("--what", f"some of {', '.join(WHAT)}", got, "Name what to edit")
        for name, value, low, high in (
            ("--draws", self.draws, 1, MAX_DRAWS),
            ("--images", self.n_images, 2, MAX_IMAGES),
        ):
            if not low <= value <= high:
                rule = f"a whole number from {low} to {high:,}"
                yield Fault(name, rule, str(value), "Correct the value")


@dataclass(frozen=True)
class Located:
    """The edits of one model on every set. `carried`: of sets of classes, by name."""

    rows: list[EditRow]
    carried: dict[str, Carried] = field(default_factory=dict)


def read_edits(
    gauge: Gauge,
    model: Readable,
    asked: Asked | None = None,
    *,
    where: str = "model",
    tell: Tell = lambda share: None,
) -> Located:
    """All edits of a fine-tuned model that can be read by the gauge.

    Args:
        model: as `live_model` or `reload` give it, proven by the guard.
        where: names the model in an error.

    Raises:
        MethodError: if no plain weights amount to the adapted tower.
    """
    asked = asked or Asked()
    if faults := list(asked.faults()):
        raise SpecError(faults)
    both = ends(model, gauge.backbone, where)
    if not both.moved and model.text is None:
        got, step = "one with the untouched weights", "There is nothing to locate"
        raise MethodError(Fault(where, "an image encoder that was trained", got, step))
    sets = watched(gauge, model, asked.n_images)
    if not sets:
        step = "Name transfer sets, or pass a run's model with its head"
        raise SpecError(Fault("transfers", "a set of images to read edits on", "none", step))
    return _Reader(gauge.backbone, both, sets, asked, tell, own_text=model.text is not None).read()


class _Reader:
    """Edits of one model on all sets, with the share that is done told."""

    def __init__(
        self,
        backbone: Backbone,
        both: Ends,
        sets: Sequence[Watched],
        asked: Asked,
        tell: Tell,
        *,
        own_text: bool,
    ) -> None:
        self.walk = Walk(backbone.encoder())
        self.both, self.sets, self.asked, self.tell = both, sets, asked, tell
        self.own_text = own_text
        self.edits: list[Edit] = []
        self.ends = [both.adapted, both.untouched]
        if "weights" in asked.what:
            self.edits = list(Editor(both, self.walk.n_blocks, asked.draws, asked.seed).edits())
        self.blocks = passes([e.weights for e in self.edits], self.ends, self.walk.n_blocks)
        self.patch_blocks = patch_passes(self.walk.n_blocks) if "attention" in asked.what else 0
        n_images = sum(len(one.images) for one in sets)
        self.done, self.total = 0, (self.blocks + self.patch_blocks) * n_images

    def read(self) -> Located:
        rows: list[EditRow] = []
        carried = {}
        for one in self.sets:
            found = self._of_weights(one)
            if self.patch_blocks:
                found |= self._of_patches(one)
            told = Told(one, found, {edit.place: edit.moved_rel for edit in self.edits})
            rows += told.rows()
            if self.edits and not one.on_target and told.by_image:
                carried[one.name] = told.carried()
        return Located(rows, carried)

    def _of_weights(self, one: Watched) -> Found:
        embedded = embeddings_of(
            self.walk,
            [*(edit.weights for edit in self.edits), *self.ends],
            self.ends,
            one.images,
            lambda n: self._seen(n * self.blocks),
        )
        known: dict[tuple[int, Edited, bool], Read] = {}
        found: Found = {}

        def read(key: Key, features: Tensor, text: Edited) -> None:
            full = key.beside is None
            same = (id(features), text, full)  # of equal weights there is one tensor
            known[same] = known.get(same) or read_set(one, features, text, full=full)
            found[key] = known[same]

        for edit, features in zip(self.edits, embedded, strict=False):
            text = other(edit.of) if edit.kind == "all" else edit.of
            read(Key(*edit.place, edit.beside, edit.draw), features, text)
        for of, features in zip(SIDES, embedded[-2:], strict=True):
            read(plain(of), features, of)
            if self.own_text and self.edits:
                name: EditName = "revert" if of == "adapted" else "graft"
                read(Key(name, of, None, "text"), features, other(of))
        return found

    def _of_patches(self, one: Watched) -> Found:
        embedded = patched(
            self.walk,
            self.walk.staged(self.both.adapted),
            self.walk.staged(self.both.untouched),
            one.images,
            seed=self.asked.seed,
            seen=lambda n: self._seen(n * self.patch_blocks),
        )
        return {
            Key(p.edit, p.of, p.block, "attention"): read_set(one, x, p.of, full=True)
            for p, x in embedded.items()
        }

    def _seen(self, blocks: int) -> None:
        self.done += blocks
        self.tell(min(1.0, self.done / self.total))
