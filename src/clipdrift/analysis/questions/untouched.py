"""What the untouched model can do, beside what a guess would: on the target and on every set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from clipdrift.analysis.rows import OfTarget, Reason, RunIds, Said, key, sure
from clipdrift.analysis.statistics.cell_means import number
from clipdrift.analysis.statistics.crossed import binomial
from clipdrift.analysis.statistics.influence import NOT_RECORDED
from clipdrift.analysis.usable import usable_records
from clipdrift.records import RunRecord
from clipdrift.records.readings import TARGET_ZERO_SHOT
from clipdrift.records.transfer import TransferReading

ABOVE = "more than chance"
NOT_ABOVE = "no more than chance: nothing to keep"
UNKNOWN = "whether this is more than chance is not known"


@dataclass(frozen=True, kw_only=True)
class Untouched(OfTarget):
    """Zero-shot accuracy of the untouched model, as the runs of a target recorded it.

    Of images with captions it is the mean recall of retrieval, and chance that of a random order.

    metric: a transfer dataset's, or the target's own test part by class texts
    chance: accuracy of always naming the commonest class
    accuracy: zero-shot, of the untouched model
    image_se: standard error from drawing images, binomial
    remark: whether this is more than chance
    """

    table: ClassVar = "untouched"

    metric: Annotated[str, key("Read on", "images")]
    n_images: Annotated[int | None, Said("count", "Images")]
    chance: Annotated[float | None, Said("value", "Chance (%)")]
    accuracy: Annotated[float, Said("value", "Zero-shot accuracy (%)")]
    image_se: Annotated[float | None, sure("± images", "size")]
    remark: Annotated[str, Said("remark", "Remark")]
    run_ids: RunIds
    reason: Reason


def rows(records: Sequence[RunRecord]) -> list[Untouched]:
    """One row per backbone, target and set of images on which the untouched model was read."""
    found: dict[tuple[str, str, str], list[tuple[str, TransferReading]]] = {}
    for record in usable_records(records):
        for name, reading in _readings(record):
            if reading.baseline_score is not None:
                metric = f"{name}.baseline_{reading.score_name}"
                where = (record.backbone, record.target, metric)
                found.setdefault(where, []).append((record.run_id, reading))
    return [_row(*where, read) for where, read in found.items()]


def _readings(record: RunRecord) -> Iterator[tuple[str, TransferReading]]:
    if record.result.target_zero_shot is not None:
        yield TARGET_ZERO_SHOT, record.result.target_zero_shot
    for name, reading in sorted(record.result.transfer.items()):
        yield f"transfer.{name}", reading


def _row(
    backbone: str, target: str, metric: str, read: Sequence[tuple[str, TransferReading]]
) -> Untouched:
    first = read[0][1]
    known = [r.baseline_score for _, r in read if r.baseline_score is not None]
    guesses = [reading.guess for _, reading in read if reading.guess is not None]
    accuracy, n = float(np.mean(known)), first.n_images
    answers = first.score_name == "accuracy"
    remark = NOT_ABOVE if first.at_chance else ABOVE
    return Untouched(
        backbone=backbone,
        target=target,
        metric=metric,
        n_images=n or None,
        chance=number(float(np.mean(guesses))) if guesses else None,
        accuracy=accuracy,
        image_se=binomial(np.array([accuracy]), n).image_se if n and answers else None,
        remark=remark if guesses and n else UNKNOWN,
        run_ids=[run_id for run_id, _ in read],
        reason=None if n and answers else NOT_RECORDED if n else "images not counted",
    )
