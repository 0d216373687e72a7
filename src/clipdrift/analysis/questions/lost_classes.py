"""Which classes of a transfer set fell, into which others, and do they look like the target's?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from clipdrift.analysis.frame import whole_table
from clipdrift.analysis.questions.families import holm
from clipdrift.analysis.rows import OfTransfer, Reason, RunIds, Said, key, sure
from clipdrift.analysis.statistics.cell_means import CellKey
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.crossed import WON_AND_LOST, Error, crossed
from clipdrift.analysis.usable import usable_records
from clipdrift.errors import Fault, RecordError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.lost_images import TABLE

COLUMNS = ("set", "label", "predicted", "baseline_predicted", "nearest_target", "similarity")
ONE_SEED = "one seed: no interval and no test"
STILL = "the same at every seed: no interval and no test"


@dataclass(frozen=True, kw_only=True)
class LostClass(OfTransfer):
    """What fine-tuning did to each class of a transfer set, where its images are recorded.

    n_images: of the class
    accuracy_before: of the untouched model, a fraction
    accuracy_now: mean over seeds
    change_pp: accuracy now less before, percentage points
    ci_low: 95 % interval of the change, over seeds and images, no further than changes can go
    ci_high: its upper end
    p_holm: that it is not 0, corrected by Holm's method over the classes of the set
    fell_into: the class that most of those who were right before are taken for now
    fell_into_share: of the images that were right before and are wrong now
    nearest_target: the target class whose text lies nearest to this one's
    similarity: cosine of those two texts
    """

    table: ClassVar = "lost_classes"

    class_name: Annotated[str, key("Class", words="of the transfer set")]
    n_images: Annotated[int, Said("count", "Images")]
    accuracy_before: Annotated[float, Said("share", "Before")]
    accuracy_now: Annotated[float, Said("share", "Now")]
    change_pp: Annotated[float, Said("one", "Change (pp)")]
    ci_low: Annotated[float | None, sure("95 % interval", "one", upto="ci_high")]
    ci_high: Annotated[float | None, Said("one")]
    p_holm: Annotated[float | None, sure("p (Holm)", "p")]
    fell_into: Annotated[str | None, Said("remark", "Fell into")]
    fell_into_share: Annotated[float | None, Said("share", "Share")]
    nearest_target: Annotated[str | None, Said("remark", "Nearest target class")]
    similarity: Annotated[float | None, Said("two", "Cosine")]
    run_ids: RunIds
    reason: Reason


def rows(records: Sequence[RunRecord], tables: Mapping[str, pd.DataFrame]) -> list[LostClass]:
    """One row per cell, transfer set and class, the largest falls first.

    Change, interval and p of a class are of one procedure over seeds and images: see `crossed`.

    Args:
        tables: run id -> one row per transfer image, as `read_tables` reads them.
    """
    return [row for read in by_set(records, tables) for row in _of_set(*read)]


class ReadSet(NamedTuple):
    """What the runs of a cell, in order of their seeds, made of each image of a transfer set."""

    cell: CellKey
    transfer: str
    run_ids: list[str]
    parts: list[pd.DataFrame]


def by_set(records: Sequence[RunRecord], tables: Mapping[str, pd.DataFrame]) -> Iterator[ReadSet]:
    """Every cell and transfer set of which all runs hold the same images."""
    cells: dict[CellKey, list[str]] = {}
    for r in usable_records(records):
        if r.run_id in tables:
            cell = CellKey.of(r)
            cells.setdefault(cell, []).append(r.run_id)
    for cell, ids in cells.items():
        runs = [dict(iter(tables[run_id].groupby("set", sort=True))) for run_id in ids]
        for name, first in runs[0].items():
            parts = [run[name] for run in runs if name in run and len(run[name]) == len(first)]
            if len(parts) == len(runs):
                yield ReadSet(cell, str(name), ids, parts)


def _of_set(
    cell: CellKey, name: str, run_ids: list[str], parts: list[pd.DataFrame]
) -> list[LostClass]:
    label = parts[0]["label"].to_numpy(dtype=str)
    before = parts[0]["baseline_predicted"].to_numpy(dtype=str) == label
    predicted = np.array([part["predicted"].to_numpy(dtype=str) for part in parts])
    near, similarity = (parts[0][name].to_numpy() for name in ("nearest_target", "similarity"))
    found = []
    for class_name in sorted(set(label)):
        at = label == class_name
        lost = predicted[:, at][before[at] & (predicted[:, at] != class_name)]
        into, count = _commonest(lost)
        first = int(at.argmax())
        row = LostClass(
            **cell._asdict(),
            transfer=name,
            class_name=class_name,
            n_images=int(at.sum()),
            accuracy_before=float(before[at].mean()),
            accuracy_now=float((predicted[:, at] == class_name).mean()),
            change_pp=0.0,
            ci_low=None,
            ci_high=None,
            p_holm=None,
            fell_into=into,
            fell_into_share=count / lost.size if into else None,
            nearest_target=near[first],
            similarity=float(similarity[first]),
            run_ids=run_ids,
            reason=None,
        )
        right = (predicted[:, at] == class_name).astype(np.float64)
        found.append(_tested(row, 100 * (right - before[at])))
    known = [i for i, row in enumerate(found) if row.p_holm is not None]
    adjusted = holm(np.array([found[i].p_holm for i in known], dtype=np.float64))
    for i, p in zip(known, adjusted.tolist(), strict=True):
        found[i] = replace(found[i], p_holm=p)
    return sorted(found, key=lambda row: row.change_pp)


def _commonest(classes: np.ndarray) -> tuple[str | None, int]:
    if not classes.size:
        return None, 0
    names, counts = np.unique(classes, return_counts=True)
    return str(names[counts.argmax()]), int(counts.max())


def _tested(row: LostClass, change: Floats) -> LostClass:
    """With interval and p of the mean of (G, n) changes in percentage points."""
    found = crossed(change, 100 * np.array(WON_AND_LOST))
    row = replace(row, change_pp=found.mean)
    if found.seed_se is None:
        return replace(row, reason=ONE_SEED)
    if found.ci.low is None:
        return replace(row, reason=STILL)
    error = Error(found.seed_se, found.shared_se, *change.shape)
    low, high = (min(100.0, max(-100.0, end or 0.0)) for end in found.ci)
    return replace(row, ci_low=low, ci_high=high, p_holm=error.p(found.mean))


def of_folder(folder: StudyFolder) -> tuple[list[LostClass], list[Fault]]:
    """The rows of a study folder, and the faults of records and tables that cannot be used.

    Raises:
        RecordError: if no finished run was read in full.
    """
    records, faults = folder.records()
    tables, damaged = read_tables(folder, records)
    found = rows(records, tables)
    if not found:
        step = "Run the study with `evaluation: {in_full: true}`"
        nothing = Fault(str(folder.path), "finished runs that were read in full", "none", step)
        raise RecordError([nothing, *faults, *damaged])
    return found, [*faults, *damaged]


def read_tables(
    folder: StudyFolder, records: Sequence[RunRecord]
) -> tuple[dict[str, pd.DataFrame], list[Fault]]:
    """What each run made of each transfer image, and the faults of files that cannot be used.

    Runs that were not read in full have no such file.
    """
    tables: dict[str, pd.DataFrame] = {}
    faults = []
    for record in records:
        if TABLE not in record.files:
            continue
        path = folder.run_path(record.run_id) / TABLE
        table = whole_table(path, record.files[TABLE])
        if set(COLUMNS) <= set(table):
            tables[record.run_id] = table
        else:
            step = "Run the study again to redo the run"
            expected = "the recorded table of transfer images"
            faults.append(Fault(str(path), expected, "a damaged or different file", step))
    return tables, faults
