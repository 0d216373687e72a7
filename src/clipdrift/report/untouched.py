"""What the untouched model can do, beside what a guess would: on the target and on every set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clipdrift.analysis.frame import BASELINE, CHANCE
from clipdrift.analysis.statistics.crossed import binomial
from clipdrift.records.schema import TARGET_ZERO_SHOT
from clipdrift.records.transfer import TransferReading
from clipdrift.report.metrics import UNDEFINED, fixed, metric
from clipdrift.report.printed import DERIVED, MEAN, Printed, Sentence
from clipdrift.report.source import Place, Study
from clipdrift.report.tables import Column, Table, word


def baseline_of(study: Study, place: Place, name: str, field: str) -> Printed | None:
    """Accuracy of the untouched model, or of a guess, as the runs of a place recorded it."""
    column = f"{name}{field}"
    if column not in study.runs:
        return None
    here = (study.runs["backbone"] == place.backbone) & (study.runs["target"] == place.target)
    runs = study.runs[here & study.runs[column].notna()]
    if runs.empty:
        return None
    value, shown = float(runs[column].mean()), metric(column)
    at = study.index.encode(runs["run_id"])
    return Printed(shown.with_unit(value), column, MEAN, at, value, shown.label)


def zero_shot_before(study: Study, place: Place) -> Iterator[Sentence]:
    """Was fine-tuning needed? What the class texts alone reach on the target."""
    before, chance = (
        baseline_of(study, place, TARGET_ZERO_SHOT, field) for field in (BASELINE, CHANCE)
    )
    if before is not None and chance is not None:
        where = "on the target's test part"
        how = "Untouched and by class texts alone, the model reaches "
        yield [how, before, f" {where} (chance ", chance, ")."]


def untouched_table(study: Study) -> Table | None:
    """A row per set that a place reads: chance, accuracy, and whether they are told apart."""
    rows = [
        line
        for place in study.places
        for name in _sets(study)
        if (line := _line(study, place, name))
    ]
    columns = [
        Column("Target", numeric=False),
        Column("Read on", numeric=False),
        Column("Images"),
        Column("Chance", "accuracy of always naming the commonest class"),
        Column("Zero-shot accuracy", "of the untouched model"),
        Column("± images", "standard error from drawing images (binomial), in points"),
        Column("Remark", numeric=False),
    ]
    caption = "The untouched model"
    return (
        Table("untouched", caption, columns, rows, 2, file="runs/*/record.json") if rows else None
    )


def _sets(study: Study) -> list[str]:
    return [TARGET_ZERO_SHOT, *(f"transfer.{name}" for name in study.transfers)]


def _line(study: Study, place: Place, name: str) -> list[Printed] | None:
    before = baseline_of(study, place, name, BASELINE)
    if before is None:
        return None
    reading = next(r for r in _readings(study, place, name) if r.baseline_accuracy is not None)
    n, runs = reading.n_images, before.runs
    se = UNDEFINED if not n else fixed(100 * binomial(np.array([before.sort]), n).image_se, 1)
    own = name == TARGET_ZERO_SHOT
    return [
        word(study.title(place)),
        word("its own test part" if own else name.removeprefix("transfer.")),
        Printed(f"{n:,}", "", DERIVED, runs, n) if n else word(UNDEFINED),
        baseline_of(study, place, name, CHANCE) or word(UNDEFINED, title="not recorded"),
        before,
        Printed(se, "", DERIVED, runs) if n else word(UNDEFINED, title="images not counted"),
        word(_remark(reading)),
    ]


def _remark(reading: TransferReading) -> str:
    if reading.guess is None or not reading.n_images:
        return "whether this is more than chance is not known"
    return "no more than chance: nothing to keep" if reading.at_chance else ""


def _readings(study: Study, place: Place, name: str) -> Iterator[TransferReading]:
    for record in study.usable:
        if (record.backbone, record.target) == place:
            own = record.result.target_zero_shot
            read = (
                own
                if name == TARGET_ZERO_SHOT
                else record.result.transfer.get(name.removeprefix("transfer."))
            )
            if read is not None:
                yield read


__all__ = ["baseline_of", "untouched_table", "zero_shot_before"]
