"""Early warning on the records of a study: is the forecast any good?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np

from clipdrift.analysis.questions.forecast_trial import LEVEL, Against, EarlyWarning, validation
from clipdrift.analysis.questions.held_out import SPLITS, Held, hold_out
from clipdrift.analysis.questions.lessons import Lessons, lessons_of
from clipdrift.analysis.usable import usable_records
from clipdrift.errors import ClipdriftError
from clipdrift.records import RunRecord

AFTER_EPOCH = 1
*WITHIN, OTHERS = SPLITS


def rows(records: Sequence[RunRecord]) -> list[EarlyWarning]:
    """How good forecasts of left-out runs are.

    The forecast of `forecast.fitted`, made anew for every group that is left out: a cell, target or
    method at a time, each backbone for itself; and a whole backbone, forecast from all others.

    Returns:
        One row per backbone and split; none of backbones with too few runs to learn from.
    """
    usable = usable_records(records)
    across = _across_backbones(usable)
    held = []
    for backbone in sorted({record.backbone for record in usable}):
        data = _lessons(record for record in usable if record.backbone == backbone)
        if data is None:
            continue
        held += [(backbone, data, hold_out(data, split, LEVEL)) for split in WITHIN]
        if across is None:
            held.append((backbone, data, hold_out(data, OTHERS, LEVEL)))
        else:
            held.append((backbone, across[0], _of_backbone(*across, backbone)))
    judged = []
    for backbone, data, one in held:
        ids = [run_id for run_id, there in zip(data.run_ids, one.there, strict=True) if there]
        judged.append(replace(validation(data, one), backbone=backbone, run_ids=ids))
    return judged


def _lessons(records: Iterable[RunRecord]) -> Lessons | None:
    try:
        runs = [("study", record) for record in records]
        return lessons_of(runs, where="records", after_epoch=AFTER_EPOCH)
    except ClipdriftError:
        return None


def _across_backbones(usable: Sequence[RunRecord]) -> tuple[Lessons, Held] | None:
    """Runs of every backbone forecast from those of all others; None where there is but one."""
    everything = _lessons(usable)
    if everything is None or len({cell.backbone for cell in everything.cells}) == 1:
        return None
    return everything, hold_out(everything, OTHERS, LEVEL)


def _of_backbone(everything: Lessons, held: Held, backbone: str) -> Held:
    mine = np.array([cell.backbone == backbone for cell in everything.cells])
    return held._replace(there=held.there & mine)


RIVALS = (
    (attrgetter("against_epoch_retention"), "retention after the same epoch"),
    (attrgetter("against_lower_rate"), "the next lower rate of the same method"),
    (attrgetter("against_mean"), "the mean"),
)
FOUND = {
    "better": "beats",
    "no clear difference": "is not clearly different from",
    "worse": "is worse than",
}


def verdict(validation: Iterable[EarlyWarning], level: float = LEVEL) -> str:
    """Whether the forecast is worth its trouble, from the rows that can say so."""
    judged = [row for row in validation if row.n]
    words = list(
        compared((name, row.split, found(row)) for found, name in RIVALS for row in judged)
    )
    held = [
        f"{row.coverage:.0%} of runs on a left-out {row.split}"
        for row in judged
        if row.coverage is not None
    ]
    if held:
        words.append(f"its {level:.0%} interval held {' and '.join(held)}")
    without = [row.split for row in judged if row.coverage is None]
    if without:
        words.append(f"it gives no interval on a left-out {_or(without)}")
    return f"The forecast {'; '.join(words)}."


def compared(judged: Iterable[tuple[str, str, Against | None]]) -> Iterator[str]:
    """What was found beside each rival: (its name, what was left out, the finding)."""
    by_rival: dict[str, list[tuple[str, Against | None]]] = {}
    for name, split, against in judged:
        by_rival.setdefault(name, []).append((split, against))
    for name, found in by_rival.items():
        parts = []
        for finding, verb in FOUND.items():
            if splits := [split for split, one in found if one == finding]:
                parts.append(f"{verb} {name} on a left-out {_or(splits)}")
        if parts:
            yield " and ".join(parts)


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
