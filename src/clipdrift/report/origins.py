"""Where the numbers come from: the design, versions and hardware, every run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from clipdrift.analysis.rows import UNDEFINED
from clipdrift.records import RunRecord
from clipdrift.report.digits import significant
from clipdrift.report.metrics import metric
from clipdrift.report.printed import COUNT, DERIVED, VALUE, Printed
from clipdrift.report.source import Study
from clipdrift.report.tables import MAX_ROWS, Column, Table, run_words, text_columns, word
from clipdrift.spec.audit import audit

MAX_TEXT = 120
MAX_VALUES = 6


def design_table(study: Study) -> Table | None:
    """The audit of the study's own file."""
    if study.spec is None:
        return None
    rows = [[word(r.factor), word(r.value), word(r.status)] for r in audit(study.spec)]
    columns = text_columns("Factor", "Value", "Status")
    return Table("design", "The design as written", columns, rows, 1)


def conditions_table(study: Study) -> Table | None:
    """Provenance of the records: one row per key and distinct value."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in study.listed:
        for key, value in _flat(record.provenance):
            values[key][value].append(record.run_id)
    rows = []
    for key in sorted(values):
        found = sorted(values[key].items(), key=lambda item: (-len(item[1]), item[0]))
        for value, ids in found[:MAX_VALUES]:
            short = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
            count = Printed(str(len(ids)), "", COUNT, study.index.encode(ids), len(ids))
            rows.append([word(key), word(short, title=value), count])
        if len(found) > MAX_VALUES:
            rows.append(
                [word(key), word(f"… and {len(found) - MAX_VALUES} other values"), word("")]
            )
    columns = [*text_columns("What", "Value"), Column("Runs")]
    table = Table("conditions", "Software, hardware and data of the runs", columns, rows, 1)
    return table if rows else None


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}.")
        else:
            yield name, item if isinstance(item, str) else json.dumps(item)


def runs_table(study: Study) -> Table:
    """Every record with its main numbers, unfinished runs included."""
    names = [study.accuracy, *study.outcomes, *study.main_drifts[:1]]
    if study.accuracy != "val_accuracy":
        names.insert(0, "val_accuracy")
    texts = ("Run", "Target", "Method")
    columns = [
        *text_columns(*texts),
        Column("LR"),
        Column("Seed"),
        Column("Status", numeric=False),
        Column("Epoch", "the selected epoch"),
        *(Column(metric(name).axis) for name in names),
        Column("Wall (s)", "wall time of the run"),
    ]
    values = study.runs.set_index("run_id")
    used = {record.run_id for record in study.usable}
    rows, marks = [], []
    for record in study.listed[:MAX_ROWS]:
        usable = record.run_id in used
        numbers = [_value(study, values, record, name, usable=usable) for name in names]
        rows.append([*_head(study, record, usable=usable), *numbers, _seconds(study, record)])
        marks.append("" if usable else "broken")
    return Table(
        "runs",
        "All runs",
        columns,
        rows,
        1,
        marks,
        n_all=len(study.listed),
        file="runs/*/record.json",
    )


def _head(study: Study, record: RunRecord, *, usable: bool) -> list[Printed]:
    status = record.status if usable or record.status != "finished" else "left out"
    epoch = record.selected_epoch
    runs = study.index.encode([record.run_id])
    return [
        *run_words(record),
        word(status, title=record.reason or ""),
        word(UNDEFINED) if epoch is None else Printed(str(epoch), "", DERIVED, runs, epoch),
    ]


def _value(study: Study, values: Any, record: RunRecord, name: str, *, usable: bool) -> Printed:
    if not usable or name not in values:
        return Printed(UNDEFINED, title=record.reason or "the run is in no mean")
    value = float(values.at[record.run_id, name])
    text = metric(name).number(value)
    reason = record.undefined.get(name, "undefined in the record") if text == UNDEFINED else ""
    stat = "" if text == UNDEFINED else VALUE
    sort = None if text == UNDEFINED else value
    return Printed(text, name, stat, study.index.encode([record.run_id]), sort, reason)


def _seconds(study: Study, record: RunRecord) -> Printed:
    seconds = record.timing.get("wall_seconds")
    if seconds is None:
        return Printed(UNDEFINED, title="not recorded")
    runs = study.index.encode([record.run_id])
    return Printed(significant(seconds), "", DERIVED, runs, seconds)
