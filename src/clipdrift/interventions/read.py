"""Every edit of one model, read on the same images: what it changes, beside its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.errors import Fault, MethodError, SpecError
from clipdrift.interventions.asked import Asked
from clipdrift.interventions.edits import Edit, Editor
from clipdrift.interventions.parts import SIDES, Ends, ends, other
from clipdrift.interventions.patches import Patch, patch_passes, patched, patches
from clipdrift.interventions.states import States, embeddings_of, passes
from clipdrift.interventions.told import Carried, Found, Key, Read, Told, plain, read_set
from clipdrift.interventions.walk import Walk
from clipdrift.interventions.watched import Watched, watched
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.model import Readable
from clipdrift.records.located import Edited, EditName, EditRow

Tell = Callable[[float], None]
"""Told which share of the work is done, 0 to 1."""


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
        self.sets, self.asked, self.tell = sets, asked, tell
        self.own_text = own_text
        self.ends = [both.adapted, both.untouched]
        elsewhere = "elsewhere" in asked.what
        self.editor = Editor(both, self.walk.n_blocks, asked.draws, elsewhere, asked.seed)
        every = range(1, self.walk.n_blocks + 1)
        self.inside = set(every if "kinds" in asked.what else ())
        self.done, self.total = 0, sum(len(one.images) * self._blocks(one) for one in sets)

    def _blocks(self, one: Watched) -> int:
        """About as many as will run for one image of a set, if no block stands out."""
        edits, n = [e.weights for e in self._edits(one)], self.walk.n_blocks
        return 2 * n + patch_passes(self._patches(one), n) + passes(edits, self.ends, n)

    def _edits(self, one: Watched) -> list[Edit]:
        if not self.asked.of_weights:
            return []
        return list(self.editor.edits(self.inside, controls=not one.on_target))

    def _patches(self, one: Watched) -> list[Patch]:
        return patches(self.walk, self.asked.what, each_block=not one.on_target)

    def read(self) -> Located:
        """Transfer sets come first: what they lost says which blocks are looked into."""
        rows: list[EditRow] = []
        carried = {}
        for one in self.sets:
            states, edits = States(self.walk, self.ends, one.images), self._edits(one)
            found = self._of_weights(one, states, edits)
            if edits and not one.on_target:
                inside = self._inside(Told(one, found, {}).may_carry())
                found |= self._of_weights(one, states, inside) if inside else {}
                edits += inside
            if wanted := self._patches(one):
                found |= self._of_patches(one, states, wanted)
            told = Told(one, found, {edit.place: edit.moved_rel for edit in edits})
            rows += told.rows()
            if edits and not one.on_target and told.by_image:
                carried[one.name] = told.carried()
        return Located(rows, carried)

    def _inside(self, blocks: Iterable[int]) -> list[Edit]:
        """Edits of the kinds in blocks that were not looked into so far."""
        new = set(blocks) - self.inside
        self.inside |= new
        return list(self.editor.edits_inside(new))

    def _of_weights(self, one: Watched, states: States, edits: Sequence[Edit]) -> Found:
        weights = [*(edit.weights for edit in edits), *self.ends]
        blocks = passes(weights, self.ends, self.walk.n_blocks)
        embedded = embeddings_of(states, weights, lambda n: self._seen(n * blocks))
        known: dict[tuple[int, Edited, bool], Read] = {}
        found: Found = {}

        def read(key: Key, features: Tensor, text: Edited) -> None:
            full = key.beside is None
            same = (id(features), text, full)  # of equal weights there is one tensor
            known[same] = known.get(same) or read_set(one, features, text, full=full)
            found[key] = known[same]

        for edit, features in zip(edits, embedded, strict=False):
            text = other(edit.of) if edit.kind == "all" else edit.of
            read(Key(*edit.place, edit.beside, edit.draw), features, text)
        for of, features in zip(SIDES, embedded[-2:], strict=True):
            read(plain(of), features, of)
            if self.own_text and self.asked.of_weights:
                name: EditName = "revert" if of == "adapted" else "graft"
                read(Key(name, of, None, "text"), features, other(of))
        return found

    def _of_patches(self, one: Watched, states: States, wanted: Sequence[Patch]) -> Found:
        blocks = patch_passes(wanted, self.walk.n_blocks)
        embedded = patched(
            states,
            wanted,
            seed=self.asked.seed,
            seen=lambda n: self._seen(n * blocks),
        )
        return {
            Key(p.edit, p.of, p.block, p.kind, head=p.head): read_set(one, x, p.of, full=True)
            for p, x in embedded.items()
        }

    def _seen(self, blocks: int) -> None:
        self.done += blocks
        self.tell(min(1.0, self.done / self.total))
