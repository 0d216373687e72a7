"""The race for one target: what its records say, who leads, and which runs come next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clipdrift.analysis.statistics.extras import interpolations
from clipdrift.errors import Fault, RecordError
from clipdrift.racing.imputed import Floats, Numbers
from clipdrift.racing.standing import Question, Standing, standing
from clipdrift.records import RunRecord
from clipdrift.records.readings import Reading

EARLY_SHARE = 5
"""A cell is first read after a fifth of its epochs, of at least one."""
ADAPTED = 1.0
CellName = tuple[str, float]
"""Method and learning rate."""


class Entry(NamedTuple):
    """A run that may be measured. matched: its method shares the study's learning rates."""

    run_id: str
    target: str
    method: str
    learning_rate: float
    seed: int
    epochs: int
    matched: bool = True

    @property
    def cell(self) -> CellName:
        return self.method, self.learning_rate

    @property
    def early(self) -> int:
        """The epoch after which the cell is read first."""
        return max(1, self.epochs // EARLY_SHARE)


class Wanted(NamedTuple):
    """A run to be measured, to its end or until an epoch; cost: as a share of a whole run."""

    run_id: str
    until: int | None
    cost: float


class Look(NamedTuple):
    """A contest as it stands. before: what has to be measured before anything can be said.

    standing: None until then. answer: method, rate and alpha of the leader. options: tasks that
    could change the answer, the most worth their compute first, with that worth.
    """

    before: list[Wanted]
    standing: Standing | None = None
    answer: tuple[str, float, float] | None = None
    options: Sequence[tuple[float, Wanted]] = ()


Records = Mapping[str, RunRecord]


def spent(entries: Iterable[Entry], records: Records) -> float:
    """Training that the records hold, in whole runs."""
    return sum(
        records[one.run_id].history[-1].epoch / one.epochs
        for one in entries
        if one.run_id in records and records[one.run_id].history
    )


@dataclass(frozen=True)
class Contest:
    """The runs of one target, in the order of their seeds, and the question.

    A cell with a run that diverged or failed is out: its mean would be of the runs that did not.
    """

    entries: Sequence[Entry]
    question: Question

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(one.seed for one in self.entries))

    def look(self, records: Records) -> Look:
        """What is known, and what comes next; the same records give the same answer."""
        rows = self._rows(records)
        begun = [any(one.run_id in records for one in row) for row in rows.values()]
        before = [
            Wanted(row[0].run_id, _until(row[0]), row[0].early / row[0].epochs)
            for row, there in zip(rows.values(), begun, strict=True)
            if not there
        ]
        if before or not rows:
            return Look(before)
        transfers = _transfers(records, self.entries)
        if not transfers:
            rule, step = "a transfer set that the untouched model knows", "Add one to the study"
            raise RecordError(Fault("--race", rule, "none", step))
        alphas = _alphas(records, self.entries)
        known = _numbers(rows, records, transfers, alphas)
        found = standing(known, self.question, np.random.default_rng(0))
        cell, alpha = found.leader
        options = [
            (worth / task.cost, task)
            for row, worth in zip(rows.values(), found.worth, strict=True)
            if worth > 0 and (task := _next(row, records))
        ]
        options.sort(key=lambda option: (-option[0], option[1].run_id))
        return Look([], found, (*list(rows)[cell], alphas[alpha]), options)

    def beyond(self, answer: tuple[str, float, float]) -> float | None:
        """The rate to add if the answer lies at an edge of its method's rates; None if not."""
        method, rate, _ = answer
        own = [one for one in self.entries if one.method == method]
        rates = sorted({one.learning_rate for one in own})
        if not own[0].matched or len(rates) < 2 or rate not in (rates[0], rates[-1]):
            return None
        inner = rates[1] if rate == rates[0] else rates[-2]
        return float(f"{rate * rate / inner:.2g}")

    def _rows(self, records: Records) -> dict[CellName, list[Entry]]:
        rows: dict[CellName, list[Entry]] = {}
        for one in self.entries:
            rows.setdefault(one.cell, []).append(one)
        lost = {
            one.cell
            for one in self.entries
            if one.run_id in records and records[one.run_id].status in ("diverged", "failed")
        }
        return {cell: row for cell, row in rows.items() if cell not in lost}


def _until(one: Entry) -> int | None:
    return one.early if one.early < one.epochs else None


def _next(row: Sequence[Entry], records: Records) -> Wanted | None:
    """The first of a cell's runs that is not at its end."""
    for one in row:
        record = records.get(one.run_id)
        if record is None or record.status != "finished":
            done = 0 if record is None else record.history[-1].epoch
            return Wanted(one.run_id, None, (one.epochs - done) / one.epochs)
    return None


def _transfers(records: Records, entries: Iterable[Entry]) -> list[str]:
    """Sets with a retention: of finished runs, or, before there are any, of early readings."""
    found = [r for one in entries if (r := records.get(one.run_id)) and r.history]
    whole = [one.result for one in found if one.status == "finished"]
    read: Iterable[Reading] = whole or [one.history[-1] for one in found]
    sets = (item for one in read for item in one.transfer.items())
    return sorted({name for name, found in sets if found.retention_pct is not None})


def _alphas(records: Records, entries: Iterable[Entry]) -> list[float]:
    keys = {
        f"extra.{key}"
        for one in entries
        if one.run_id in records
        for key in records[one.run_id].result.extra
    }
    between = {item.alpha for item in interpolations(sorted(keys))} - {ADAPTED}
    return [ADAPTED, *sorted(between, reverse=True)]


def _numbers(
    rows: Mapping[CellName, Sequence[Entry]],
    records: Records,
    transfers: Sequence[str],
    alphas: Sequence[float],
) -> Numbers:
    n_seeds = max(len(row) for row in rows.values())
    early = np.full((len(rows), n_seeds, 1 + len(transfers)), np.nan)
    final = np.full((len(rows), n_seeds, len(alphas), 1 + len(transfers)), np.nan)
    able = np.ones((len(rows), len(alphas)), dtype=bool)
    read: dict[str, list[Floats]] = {}
    for c, row in enumerate(rows.values()):
        for s, one in enumerate(row):
            record = records.get(one.run_id)
            if record is None:
                continue
            early[c, s] = _early(record, one.early, transfers)
            if record.status == "finished":
                final[c, s] = [_final(record, alpha, transfers) for alpha in alphas]
                read.setdefault(one.method, []).append(np.isfinite(final[c, s]).all(axis=1))
    for c, (method, _) in enumerate(rows):
        if method in read:  # what no run of the method has cannot be read of it
            able[c] = np.any(read[method], axis=0)
    return Numbers(early, final, np.array([rate for _, rate in rows]), able)


def _early(record: RunRecord, epoch: int, transfers: Sequence[str]) -> list[float]:
    """NaN where the epoch was not read; a set too small for a retention counts as kept."""
    reading = next((one for one in record.history if one.epoch == epoch), None)
    if reading is None or reading.val_score is None:
        return [np.nan] * (1 + len(transfers))
    kept = [one.retention_pct if (one := reading.transfer.get(n)) else None for n in transfers]
    return [reading.val_score, *(100.0 if value is None else value for value in kept)]


def _final(record: RunRecord, alpha: float, transfers: Sequence[str]) -> list[float]:
    if alpha == ADAPTED:
        read = record.result.transfer
        kept = [one.retention_pct if (one := read.get(name)) else None for name in transfers]
        return [_number(value) for value in (record.result.val_score, *kept)]
    place, extra = f"interpolation.{alpha:g}.", record.result.extra
    names = ["val_accuracy", *(f"transfer.{name}.retention_pct" for name in transfers)]
    return [_number(extra.get(place + name)) for name in names]


def _number(value: float | None) -> float:
    return np.nan if value is None else value
