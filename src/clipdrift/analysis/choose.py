"""The choice for a study folder, with every name that was asked for held against its records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from clipdrift.analysis.frame import at_chance, runs_frame
from clipdrift.analysis.questions import choice
from clipdrift.analysis.questions.budget import Budget
from clipdrift.analysis.raced import CELL, ENOUGH, contenders
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.usable import usable_records
from clipdrift.errors import Fault, RecordError, SpecError, did_you_mean
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import readings
from clipdrift.records.race_log import read_race


class Choice(NamedTuple):
    """Candidates of every target, the best first, and what cannot be relied on."""

    rows: list[choice.Candidacy]
    """As of `choice.rows`."""
    leaks: tuple[str, ...]
    """Distinct leaks that the records state."""
    faults: list[Fault]
    """Records that could not be read; they count nowhere."""
    raced: str | None = None
    """Of a study that was raced: what was left out of the choice."""


def choose(
    folder: StudyFolder,
    budget: Budget,
    *,
    targets: Collection[str] = (),
    transfers: Sequence[str] = (),
    top: int | None = None,
) -> Choice:
    """Which method, learning rate and alpha best meets a budget, for every target.

    Args:
        targets: those to answer for, default all: one answer each.
        transfers: those on which retention counts, default all: the floor holds on each of them.
        top: candidates to list per target, default all.

    Raises:
        SpecError: if a target or transfer dataset is not in the records; nearest names are offered.
        RecordError: if the folder has no finished run, or none with a retention.
        StudyFolderError: if the folder does not exist.
    """
    records, faults = folder.records()
    usable = usable_records(records)
    if not usable:
        step = "Run the study, or import records, first"
        nothing = Fault(str(folder.path), "at least one finished run", "none", step)
        raise RecordError([nothing, *faults])
    known, unknown_there = kept_transfers(usable), at_chance(records)
    if not known:
        got = "transfer accuracies without a baseline, or none"
        got = "; ".join(f"{name}: {why}" for (_, name), why in unknown_there.items()) or got
        step = "Measure a transfer dataset, or import its baseline accuracy"
        raise RecordError(Fault(str(folder.path), "a retention to choose by", got, step))
    other = f"Choose by {' or '.join(sorted(known))}"
    unknown = [
        *unknown_names("--target", targets, {record.target for record in usable}),
        *(
            Fault("--transfer", "a set that the untouched model knows", f"{n!r}: {why}", other)
            for (_, n), why in unknown_there.items()
            if n in transfers and n not in known
        ),
        *unknown_names("--transfer", transfers, {*known, *(n for _, n in unknown_there)}),
    ]
    if unknown:
        raise SpecError(unknown)
    spec = folder.read_spec()
    race = read_race(folder)
    whole = runs_frame(records)
    runs = contenders(whole, race)
    made, made_faults = readings(folder, records)
    found = choice.rows(
        runs[runs["target"].isin(list(targets))] if targets else runs,
        [budget],
        transfers=list(dict.fromkeys(transfers)) or None,
        made=made,
        images=Images(records, made),
        at_chance=unknown_there,
        unfinished=unfinished_cells(records),
        underfit_fraction=UNDERFIT_FRACTION if spec is None else spec.underfit_fraction,
        top=top,
    )
    leaks = tuple(sorted({leak for record in usable for leak in record.leaks}))
    return Choice(
        found, leaks, [*faults, *made_faults], None if race is None else _left_out(whole, runs)
    )


def _left_out(whole: pd.DataFrame, runs: pd.DataFrame) -> str:
    n, of = (len(frame[CELL].drop_duplicates()) for frame in (runs, whole))
    return (
        f"a race was run: chosen from the {n} of {of} cells that have {ENOUGH} seeds or more, or "
        "as many as its answer"
    )


def kept_transfers(records: Iterable[RunRecord]) -> set[str]:
    """Transfer datasets with a retention in at least one record."""
    return {
        name
        for record in records
        for name, reading in record.result.transfer.items()
        if reading.retention_pct is not None
    }


def unfinished_cells(records: Iterable[RunRecord]) -> list[choice.CellPlace]:
    """The cell of every run that diverged, failed or was stopped."""
    return [
        (record.backbone, record.target, record.method, record.learning_rate)
        for record in records
        if record.status != "finished"
    ]


def unknown_names(where: str, given: Iterable[str], known: Collection[str]) -> Iterator[Fault]:
    """A fault for each name that is not known, with the nearest ones that are."""
    for name in dict.fromkeys(given):
        if name in known:
            continue
        shown = ", ".join(sorted(known))
        step = did_you_mean(name, sorted(known), "Name one of them", n=3)
        yield Fault(where, f"one of the records' names ({shown})", repr(name), step)
