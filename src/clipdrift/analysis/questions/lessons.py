"""What a forecast learns from: drift and retention after an early epoch, beside final retention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipdrift.analysis.choose import kept_transfers, unknown_names
from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.forecast_model import KEPT, SIGNALS, early_values, movement
from clipdrift.analysis.usable import usable_records
from clipdrift.errors import Fault, RecordError, SpecError
from clipdrift.records import RunRecord, StudyFolder

MIN_CELLS = 8


class Cell(NamedTuple):
    """A cell of one of the folders."""

    folder: str
    backbone: str
    target: str
    method: str
    learning_rate: float


def labels_of(cells: Sequence[Cell], *fields: str) -> NDArray[np.intp]:
    """Number of each cell's group by some of its fields, groups in sorted order."""
    names = [tuple(getattr(cell, field) for field in fields) for cell in cells]
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.intp)


class Lessons(NamedTuple):
    """Runs to learn from. n runs; `values` (n, n_signals) after the early epoch; `kept` (n,) in
    percent at the end.

    `signals` name the columns of `values`: those of `SIGNALS` that at least half of the runs have.
    `n_left_out` runs lack a number, or had no epoch left to forecast.
    """

    cells: list[Cell]
    run_ids: list[str]
    signals: list[str]
    values: Floats
    kept: Floats
    transfers: list[str]
    n_left_out: int

    @property
    def moved(self) -> Floats:
        """How far the signals are from rest, (n, n_signals)."""
        return movement(self.values, self.signals)

    @property
    def early_kept(self) -> Floats | None:
        """Retention after the early epoch in percent, (n,); None where it is no signal."""
        return self.values[:, self.signals.index(KEPT)] if KEPT in self.signals else None

    def labels(self, *fields: str) -> NDArray[np.intp]:
        """Number of each run's group by some fields of its cell, groups in sorted order."""
        return labels_of(self.cells, *fields)


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
    told = [_lesson(path, record, after_epoch, names) for path, record in runs]
    whole = [lesson for lesson in told if not lesson.lacks]
    signals = [s for s in SIGNALS if 2 * sum(s in one.values for one in whole) >= len(whole) > 0]
    found = [one for one in whole if signals and all(name in one.values for name in signals)]
    n_cells = len({one.cell for one in found})
    if n_cells < MIN_CELLS:
        lacks = _lacks(told, whole, signals, after_epoch)
        got = f"{n_cells} cells ({len(found)} of {len(runs)} finished runs{lacks})"
        imported = any(map(_is_imported, (record for _, record in runs)))
        raise RecordError(_too_few(where, got, after_epoch, imported=imported))
    order = sorted(found, key=lambda one: (one.cell, one.record.seed, one.record.run_id))
    return Lessons(
        [one.cell for one in order],
        [one.record.run_id for one in order],
        signals,
        np.array([[one.values[name] for name in signals] for one in order]),
        np.array([one.kept for one in order]),
        names,
        len(runs) - len(found),
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


class _Lesson(NamedTuple):
    """A run with what it has of the early signals, its final retention, or what it lacks."""

    cell: Cell
    record: RunRecord
    values: dict[str, float]
    kept: float
    lacks: list[str]


def _lesson(path: str, record: RunRecord, after_epoch: int, transfers: Sequence[str]) -> _Lesson:
    early = next((entry for entry in record.history if entry.epoch == after_epoch), None)
    lacks = [] if early else [f"a reading after epoch {after_epoch}"]
    if early and _last_epoch(record) <= after_epoch and not _is_imported(record):
        lacks.append("a later epoch")
    known = record.result.transfer
    kept = {name: known[name].retention_pct if name in known else None for name in transfers}
    lacks += [f"final retention on {name}" for name, value in kept.items() if value is None]
    values = early_values(early, transfers) if early else {}
    least = min((value for value in kept.values() if value is not None), default=np.nan)
    cell = Cell(path, record.backbone, record.target, record.method, record.learning_rate)
    return _Lesson(cell, record, values, least, lacks)


def _last_epoch(record: RunRecord) -> int:
    return max((entry.epoch for entry in record.history), default=0)


def _is_imported(record: RunRecord) -> bool:
    """An imported table tells of its early epoch and of the end, not how many lie between."""
    return "imported" in record.provenance


def _lacks(
    told: Sequence[_Lesson], whole: Sequence[_Lesson], signals: Sequence[str], epoch: int
) -> str:
    """What keeps runs from being lessons, each with the number of runs that lack it."""
    counts = Counter(name for one in told for name in one.lacks)
    needed = signals or SIGNALS
    for name in needed:
        shown = name if name == KEPT else f"drift.{name}"
        counts[f"{shown} after epoch {epoch}"] = sum(name not in one.values for one in whole)
    missing = [f"{what} in {n}" for what, n in counts.items() if n]
    return f"; missing: {', '.join(missing)}" if missing else ""


def _too_few(where: str, got: str, epoch: int, *, imported: bool) -> Fault:
    rule = (
        f"at least {MIN_CELLS} cells of matched methods with drift or retention after epoch "
        f"{epoch}, a later epoch and a final retention"
    )
    step = "Name more study folders, choose an earlier epoch, or run a wider grid"
    if imported:
        names = "'epoch1.drift.<signal>' and 'epoch1.transfer.<name>.retention_pct'"
        step = f"Import the table with its columns of epoch 1 mapped to {names}"
    return Fault(where, rule, got, step)
