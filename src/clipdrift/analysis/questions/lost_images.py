"""Into which classes the lost images of a transfer set fell, and which images they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from clipdrift.analysis.questions.lost_classes import ReadSet, by_set
from clipdrift.analysis.rows import OfTransfer, Reason, RunIds, Said, key
from clipdrift.records import RunRecord
from clipdrift.records.lost_images import OPEN, file_name, licence_of, picked

MOST_FLOWS = 20
NO_LICENCE = "no licence is recorded for this set"
ANOTHER_LICENCE = "its licence does not let anyone pass images on"


@dataclass(frozen=True, kw_only=True)
class LostFlow(OfTransfer):
    """Into which classes the images fell that were right before: the 20 largest flows of a set.

    class_name: of the images, which the untouched model took them for
    fell_into: the class that they are taken for now
    n_lost: such images, mean over seeds
    share: of all images of the set that were right before and are wrong now
    n_lost_in_set: all of these, mean over seeds
    """

    table: ClassVar = "lost_flows"

    class_name: Annotated[str, key("Class")]
    fell_into: Annotated[str, key("Fell into")]
    n_lost: Annotated[float, Said("one", "Images")]
    share: Annotated[float, Said("share", "Of all lost")]
    n_lost_in_set: Annotated[float, Said("one")]
    run_ids: RunIds


@dataclass(frozen=True, kw_only=True)
class LostImage(OfTransfer):
    """Images that stand for those that were right before and are wrong now, of each first seed.

    By how far their margin fell, the largest fall first, no two of one class, four a set.

    image: its number in the data that the set was read from, from 0
    class_name: its own
    fell_into: the class that it is taken for now
    margin_before: cosine with the right class's text less the nearest wrong one's, untouched
    margin_now: the same as adapted
    file: its picture in the run's folder, where one was kept
    licence: of the images of the set, as it was known when the run was measured
    reason: why its picture is not shown unless it is asked for; null where it may be
    """

    table: ClassVar = "lost_images"

    image: Annotated[int, key("Image", "count")]
    class_name: Annotated[str, Said("remark", "Class")]
    fell_into: Annotated[str, Said("remark", "Taken for")]
    margin_before: Annotated[float, Said("two", "Margin before")]
    margin_now: Annotated[float, Said("two", "Margin now")]
    run_id: str
    file: str
    licence: Annotated[str | None, Said("remark", "Licence")]
    reason: Reason


def rows(
    records: Sequence[RunRecord], tables: Mapping[str, pd.DataFrame]
) -> tuple[list[LostFlow], list[LostImage]]:
    """Flows and images of every cell and transfer set that was read in full.

    Args:
        tables: as `lost_classes.read_tables` reads them.
    """
    stated = {record.run_id: record.provenance for record in records}
    flows: list[LostFlow] = []
    images: list[LostImage] = []
    for read in by_set(records, tables):
        flows += _flows(read)
        images += _images(read, licence_of(stated[read.run_ids[0]], read.transfer))
    return flows, images


def _flows(read: ReadSet) -> Iterator[LostFlow]:
    counts: Counter[tuple[str, str]] = Counter()
    for part in read.parts:
        label, now, before = _classes(part)
        at = (before == label) & (now != label)
        counts.update(zip(label[at].tolist(), now[at].tolist(), strict=True))
    n, lost = len(read.parts), sum(counts.values())
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_FLOWS]
    for (class_name, into), count in largest:
        yield LostFlow(
            **read.cell._asdict(),
            transfer=read.transfer,
            class_name=class_name,
            fell_into=into,
            n_lost=count / n,
            share=count / lost,
            n_lost_in_set=lost / n,
            run_ids=read.run_ids,
        )


def _images(read: ReadSet, licence: str | None) -> Iterator[LostImage]:
    part, run_id = read.parts[0], read.run_ids[0]
    if not {"image", "margin", "baseline_margin"} <= set(part):
        return
    label, now, before = _classes(part)
    # Of the float32 margins, as the pictures were picked by.
    margins, was = (part[name].to_numpy(np.float32) for name in ("margin", "baseline_margin"))
    reason = NO_LICENCE if licence is None else None if licence in OPEN else ANOTHER_LICENCE
    for at in picked(label, now, before, was - margins):
        image = int(part["image"].iloc[at])
        yield LostImage(
            **read.cell._asdict(),
            transfer=read.transfer,
            image=image,
            class_name=str(label[at]),
            fell_into=str(now[at]),
            margin_before=float(was[at]),
            margin_now=float(margins[at]),
            run_id=run_id,
            file=file_name(read.transfer, image),
            licence=licence,
            reason=reason,
        )


def _classes(part: pd.DataFrame) -> list[np.ndarray]:
    names = ("label", "predicted", "baseline_predicted")
    return [part[name].to_numpy(dtype=object) for name in names]
