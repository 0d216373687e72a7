"""What a forecast learns from: label-free drift after an early epoch beside final retention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.choose import kept_transfers, unknown_names
from clipdrift.analysis.frame import usable_records
from clipdrift.analysis.signals import Floats
from clipdrift.early_warning.forecast import movement
from clipdrift.errors import Fault, RecordError, SpecError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec import content_hash

MIN_CELLS = 8


class Cell(NamedTuple):
    """A cell of one of the folders."""

    folder: str
    backbone: str
    target: str
    method: str
    lr: float


class Lessons(NamedTuple):
    """Runs to learn from. n runs; `moved` (n, n_signals) from `movement`; `kept` (n,) in percent.

    `early_steps` and `steps` (n,) are those until the early epoch and in all, `early_seconds` and
    `seconds` (n,) the time of training that they took. `n_left_out` runs lack a number, or had no
    epoch left to forecast.
    """

    cells: list[Cell]
    run_ids: list[str]
    moved: Floats
    kept: Floats
    early_steps: Floats
    steps: Floats
    early_seconds: Floats
    seconds: Floats
    epochs: list[int]
    transfers: list[str]
    n_left_out: int
    records_hash: str

    def labels(self, *fields: str) -> NDArray[np.intp]:
        """Number of each run's group by some fields of its cell, groups in sorted order."""
        names = [tuple(getattr(cell, field) for field in fields) for cell in self.cells]
        numbers = {name: i for i, name in enumerate(sorted(set(names)))}
        return np.array([numbers[name] for name in names], dtype=np.intp)


def lessons(
    folders: Sequence[StudyFolder], *, after_epoch: int, transfers: Sequence[str] = ()
) -> tuple[Lessons, list[Fault]]:
    """Runs of matched methods in some study folders, and the faults of records left out.

    Retention is that of the transfer dataset on which a run keeps least.

    Args:
        after_epoch: 1 or more; runs that end there have nothing left to forecast.
        transfers: datasets on which retention counts, default all that every folder has.

    Raises:
        SpecError: if a transfer dataset is not in the records.
        RecordError: if the runs are too few.
        StudyFolderError: if a folder does not exist.
    """
    read = [folder.records() for folder in folders]
    faults = [fault for _, own in read for fault in own]
    runs = [
        (str(folder.path), record)
        for folder, (records, _) in zip(folders, read, strict=True)
        for record in usable_records(records)
    ]
    where = ", ".join(str(folder.path) for folder in folders)
    try:
        found = lessons_of(runs, where=where, after_epoch=after_epoch, transfers=transfers)
    except RecordError as error:
        raise RecordError([*error.faults, *faults]) from None
    return found, faults


def lessons_of(
    runs: Sequence[tuple[str, RunRecord]],
    *,
    where: str,
    after_epoch: int,
    transfers: Sequence[str] = (),
) -> Lessons:
    """As `lessons`, from usable records, each with the name of what it is from.

    Args:
        where: what errors call the records.
    """
    runs = [(path, record) for path, record in runs if record.role == "matched"]
    known = kept_transfers(record for _, record in runs)
    unknown = list(unknown_names("--transfer", transfers, known))
    if runs and unknown:
        raise SpecError(unknown)
    shared = _shared_transfers(runs)
    if runs and not transfers and not shared:
        raise RecordError(_nothing_shared(where, known))
    names = list(dict.fromkeys(transfers)) or sorted(shared)
    found = [
        (Cell(path, r.backbone, r.target, r.method, r.learning_rate), r, *lesson)
        for path, r in runs
        if (lesson := _lesson(r, after_epoch, names)) is not None
    ]
    n_cells = len({cell for cell, *_ in found})
    if n_cells < MIN_CELLS:
        raise RecordError(_too_few(where, n_cells, len(found), len(runs), after_epoch))
    order = sorted(found, key=lambda item: (item[0], item[1].seed, item[1].run_id))
    return Lessons(
        [cell for cell, *_ in order],
        [record.run_id for _, record, *_ in order],
        np.array([moved for *_, moved, _, _ in order]),
        np.array([kept for *_, kept, _ in order]),
        np.array([_step(record, after_epoch) for _, record, *_ in order]),
        np.array([float(record.history[-1].step) for _, record, *_ in order]),
        np.array([_seconds(record, after_epoch) for _, record, *_ in order]),
        np.array([_seconds(record, record.history[-1].epoch) for _, record, *_ in order]),
        sorted({epochs for *_, epochs in order}),
        names,
        len(runs) - len(found),
        content_hash(sorted(record.checksum or record.run_id for _, record in runs)),
    )


def _shared_transfers(runs: Sequence[tuple[str, RunRecord]]) -> set[str]:
    """Transfer datasets with a retention in every folder."""
    paths = dict.fromkeys(path for path, _ in runs)
    own = [kept_transfers(record for path, record in runs if path == one) for one in paths]
    return set.intersection(*own) if own else set()


def _nothing_shared(where: str, known: set[str]) -> Fault:
    got = f"none that all have among {', '.join(sorted(known))}" if known else "no retention at all"
    step = "Name folders that share a transfer dataset"
    return Fault(where, "a transfer dataset with retention in every folder", got, step)


def _lesson(
    record: RunRecord, after_epoch: int, transfers: Sequence[str]
) -> tuple[list[float], float, int] | None:
    """Movement after the epoch, final retention, and how many epochs the run had."""
    early = next((entry for entry in record.history if entry.epoch == after_epoch), None)
    epochs = max((entry.epoch for entry in record.history), default=0)
    if early is None or epochs <= after_epoch or not transfers:
        return None
    readings = [record.result.transfer.get(name) for name in transfers]
    kept = [None if reading is None else reading.retention_pct for reading in readings]
    moved = movement(early)
    if moved is None or any(value is None for value in kept):
        return None
    return moved, min(value for value in kept if value is not None), epochs


def _step(record: RunRecord, epoch: int) -> float:
    return float(next(entry.step for entry in record.history if entry.epoch == epoch))


def _seconds(record: RunRecord, epoch: int) -> float:
    """Of training until the end of an epoch."""
    return float(sum(entry.train_seconds for entry in record.history if entry.epoch <= epoch))


def _too_few(where: str, n_cells: int, n: int, n_runs: int, epoch: int) -> Iterator[Fault]:
    rule = (
        f"at least {MIN_CELLS} cells of matched methods with all signals after epoch {epoch}, "
        "a later epoch and a retention"
    )
    got = f"{n_cells} cells ({n} of {n_runs} finished runs)"
    step = "Name more study folders, choose an earlier epoch, or run a wider grid"
    yield Fault(where, rule, got, step)


__all__ = ["MIN_CELLS", "Cell", "Lessons", "lessons", "lessons_of"]
