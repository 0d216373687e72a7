"""What edits of finished runs change, over seeds, and which part of an encoder carries a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, NamedTuple

import numpy as np

from clipdrift.analysis.questions.carriers import Carrier, Place, carrier
from clipdrift.analysis.questions.families import holm
from clipdrift.analysis.rows import OfCell, OfTransfer, Reason, RunIds, Said, sure
from clipdrift.analysis.statistics.cell_means import CellKey
from clipdrift.analysis.statistics.intervals import UNDEFINED, Floats, ratio_ci, t_test
from clipdrift.analysis.usable import usable_records
from clipdrift.records import RunRecord
from clipdrift.records.located import EditRow, LocatedRun


@dataclass(frozen=True, kw_only=True)
class EditEffect(OfCell):
    """Effect of each edit of finished runs, paired with the same runs unedited.

    It tells what the edit does to the model as it came out, and is no proof of what training did:
    parts downstream have adapted to those that are put back.

    edit: revert: a part put back to the untouched weights; graft: a part moved alone in the
        untouched model; revert_above and revert_below: a block and all behind, or before, it put
        back; attention_*: run with the other model's pattern, another image's, a shuffled or a
        uniform one; state_other_model: with the other model's state of some tokens behind a block;
        none: the model as it is
    edited: the model that was edited, adapted or untouched; changes are against it as it is
    block: 1 is nearest to the image; null of what is in no block, or in all
    kind: all of the encoder, a block, or in a block attention, mlp, norms; embeddings, projection
        (all behind the blocks), text (the text side); of a state cls, patches
    head: of attention, from 1; null of all heads
    dataset: a transfer dataset, or the target's test part with the head that trained
    score: after the edit, a fraction, mean over seeds
    change_pp: score less that of the model before the edit, percentage points, mean over seeds
    ci_low: t over seeds
    p_holm: that the change is not 0, corrected by Holm's method over the blocks of an edit and
        kind, or over all heads
    control_pp: change by random changes of the same norm in the same place, mean
    elsewhere_pp: by a step of the same norm along the movement of the same kind in another block
    retention_pct: after the edit; null on the target
    gone_pp: points that a ridge read-out lost against the untouched model, where read in full
    misaligned_pp: points of score lost less gone_pp
    moved_rel: norm of what was moved relative to the part's own; null of attention patterns
    n_images: of each set, at most, that were read
    """

    table: ClassVar = "located"

    edit: str
    edited: str
    block: int | None
    kind: str
    head: int | None
    dataset: str
    n: Annotated[int, Said("count")]
    score: Annotated[float, Said("share")]
    change_pp: Annotated[float, Said("one")]
    ci_low: Annotated[float | None, Said("one")] = None
    ci_high: Annotated[float | None, Said("one")] = None
    p_holm: Annotated[float | None, Said("p")] = None
    control_pp: Annotated[float | None, Said("one")]
    elsewhere_pp: Annotated[float | None, Said("one")]
    retention_pct: Annotated[float | None, Said("one")]
    gone_pp: Annotated[float | None, Said("one")]
    misaligned_pp: Annotated[float | None, Said("one")]
    moved_rel: float | None
    n_images: Annotated[int, Said("count")]
    run_ids: RunIds
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class LossPlace(OfTransfer):
    """Which part of the image encoder carries what a cell lost of a transfer dataset.

    A part carries half of what putting it back restores plus half of what it loses when it is
    moved alone. It is named where it carries more than every other part over seeds, and more comes
    back than a random change of its size brings.

    lost_pp: untouched less adapted, percentage points, mean over seeds
    carried_by: block and kind, or "cannot tell"
    block: of that part; null where it is in no block, or cannot be told
    kind: of that part; null where it cannot be told
    share: of the loss that the part carries; parts need not add up to 1
    p_holm: the largest of its tests against the other parts, corrected by Holm's method
    attention_share: of the loss that attention patterns carry: half of what the untouched ones in
        all blocks bring back plus half of what the adapted ones cost; null where they were not
        exchanged, or the loss is not told from 0
    attention_low: by Fieller's method, t over seeds
    reason: why not more is told
    """

    table: ClassVar = "loss_places"

    n: Annotated[int, Said("count", "Runs")]
    lost_pp: Annotated[float, Said("one", "Lost (pp)")]
    carried_by: Annotated[str, Said("remark", "Carried by")]
    block: int | None
    kind: str | None
    share: Annotated[float | None, Said("share", "Share")]
    p_holm: Annotated[float | None, sure("p (Holm)", "p")]
    attention_share: Annotated[float | None, Said("two", "Attention")] = None
    attention_low: Annotated[float | None, sure("95 % CI", "two", upto="attention_high")] = None
    attention_high: float | None = None
    run_ids: RunIds
    reason: Annotated[str | None, Said("remark", "Why not more")]


class EditOn(NamedTuple):
    """Which edited model was read, and on which set."""

    edit: str
    edited: str
    block: int | None
    kind: str
    dataset: str
    head: int | None = None


OPTIONAL = ("control_pp", "elsewhere_pp", "retention_pct", "gone_pp", "misaligned_pp", "moved_rel")
WHY = {
    "retention_pct": "retention: on the target, or where the baseline is at chance",
    "gone_pp": "gone and misaligned: not read in full",
    "control_pp": "control: of edits of weights that moved, on transfer datasets",
    "elsewhere_pp": "elsewhere: asked for, and of a kind that moved in another block too",
    "moved_rel": "moved: of edits of weights",
}


def rows(
    records: Sequence[RunRecord], located: Mapping[str, LocatedRun]
) -> tuple[list[EditEffect], list[LossPlace]]:
    """Every edit of every cell, and for each transfer dataset the part that carries its loss.

    Args:
        located: run id -> its edits. Runs of a cell that were read otherwise than its first (other
            draws, other numbers of images) are left out.
    """
    effects: list[EditEffect] = []
    places: list[LossPlace] = []
    for cell, runs in _cells(records, located).items():
        every = [_by_edit(run) for run in runs]
        shared = [on for on in every[0] if all(on in one for one in every)]
        own = [{on: one[on] for on in shared} for one in every]
        ids = [run.run_id for run in runs]
        effects += _corrected([_effect(cell, on, [one[on] for one in own], runs) for on in shared])
        for name in dict.fromkeys(on.dataset for on in shared if not own[0][on].on_target):
            at = list(_places(own[0], name))
            if _whole(name) in own[0] and at:
                step = 100 / runs[0].n_images
                places.append(_place(cell, name, own, ids, at, step))
    return effects, places


def _cells(
    records: Sequence[RunRecord], located: Mapping[str, LocatedRun]
) -> dict[CellKey, list[LocatedRun]]:
    cells: dict[CellKey, list[LocatedRun]] = {}
    for r in sorted(usable_records(records), key=lambda r: (r.seed, r.run_id)):
        run = located.get(r.run_id)
        if run is not None:
            cell = CellKey.of(r)
            first = cells.setdefault(cell, [run])[0]
            if run is not first and _alike(run) == _alike(first):
                cells[cell].append(run)
    return {cell: cells[cell] for cell in sorted(cells)}


def _alike(run: LocatedRun) -> tuple[int, int]:
    return run.draws, run.n_images


def _by_edit(run: LocatedRun) -> dict[EditOn, EditRow]:
    return {
        EditOn(row.edit, row.of, row.block, row.kind, row.dataset, row.head): row
        for row in run.rows
    }


def _whole(name: str) -> EditOn:
    """The untouched model with all of the adapted one in it."""
    return EditOn("graft", "untouched", None, "all", name)


def _effect(
    cell: CellKey, on: EditOn, edits: Sequence[EditRow], runs: Sequence[LocatedRun]
) -> EditEffect:
    test = t_test([row.change_pp for row in edits])
    low, high = test.interval()
    means = {name: _mean([getattr(row, name) for row in edits]) for name in OPTIONAL}
    why = [text for name, text in WHY.items() if means[name] is None]
    return EditEffect(
        **cell._asdict(),
        **on._asdict(),
        n=len(edits),
        score=float(np.mean([row.score for row in edits])),
        change_pp=test.value,
        ci_low=low,
        ci_high=high,
        p_holm=test.p,
        control_pp=means["control_pp"],
        elsewhere_pp=means["elsewhere_pp"],
        retention_pct=means["retention_pct"],
        gone_pp=means["gone_pp"],
        misaligned_pp=means["misaligned_pp"],
        moved_rel=means["moved_rel"],
        n_images=runs[0].n_images,
        run_ids=[run.run_id for run in runs],
        reason="; ".join([*([test.reason] if test.reason else []), *why]) or None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _corrected(found: list[EditEffect]) -> list[EditEffect]:
    """With p corrected over the blocks of one edit, kind and dataset."""
    families: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(found):
        if row.p_holm is not None and row.block is not None:
            of = (row.edit, row.edited, row.kind, row.dataset, str(row.head is not None))
            families.setdefault(of, []).append(i)
    for own in families.values():
        adjusted = holm(np.array([found[i].p_holm for i in own], dtype=np.float64))
        for i, p in zip(own, adjusted.tolist(), strict=True):
            found[i] = replace(found[i], p_holm=p)
    return found


def _place(
    cell: CellKey,
    name: str,
    own: Sequence[Mapping[EditOn, EditRow]],
    ids: list[str],
    places: Sequence[Place],
    step: float,
) -> LossPlace:
    """step: percentage points of one image: seeds that agree do so only up to that."""
    lost = -np.array([one[_whole(name)].change_pp for one in own])
    parts: dict[Place, Floats] = {}
    above: dict[Place, float | None] = {}
    for at in places:
        back = [one[EditOn("revert", "adapted", *at, name)] for one in own]
        alone = [one[EditOn("graft", "untouched", *at, name)] for one in own]
        changes = np.array([row.change_pp for row in back])
        parts[at] = (changes - [row.change_pp for row in alone]) / 2
        control = _mean([row.control_pp for row in back])
        above[at] = None if control is None else float(changes.mean()) - control
    found: Carrier = carrier(lost, parts, above, floor=step)
    share, (low, high) = None, UNDEFINED
    patterns = [
        EditOn("attention_other_model", of, None, "attention", name)
        for of in ("adapted", "untouched")
    ]
    if all(on in own[0] for on in patterns):
        restored, cost = (np.array([one[on].change_pp for one in own]) for on in patterns)
        low, high = ratio_ci((restored - cost) / 2, lost)
        share = None if low is None else float((restored - cost).mean() / 2 / lost.mean())
    return LossPlace(
        **cell._asdict(),
        transfer=name,
        n=len(own),
        lost_pp=float(lost.mean()),
        carried_by=found.words,
        block=found.block,
        kind=found.kind,
        share=found.share,
        p_holm=found.p,
        attention_share=share,
        attention_low=low,
        attention_high=high,
        run_ids=ids,
        reason=found.reason,
    )


def _places(own: Mapping[EditOn, EditRow], name: str) -> Iterator[Place]:
    """Parts that were put back and moved alone."""
    for on in own:
        alone = EditOn("graft", "untouched", on.block, on.kind, name) in own
        if (on.edit, on.dataset) == ("revert", name) and on.kind != "all" and alone:
            yield on.block, on.kind
