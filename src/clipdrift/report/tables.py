"""Tables of the page: rows of the analysis as printed numbers, each with the runs behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clipdrift.records import RunRecord
from clipdrift.report.metrics import UNDEFINED, fixed, metric, rate_text
from clipdrift.report.printed import (
    COUNT,
    DERIVED,
    HOW_SURE,
    INTERVALS,
    Printed,
    RunIndex,
    Sentence,
    of_cell,
    of_row,
)
from clipdrift.report.source import CellId, Place, Row, Study

MAX_ROWS = 400
ByMetric = Mapping[str, Row]


@dataclass(frozen=True)
class Column:
    label: str
    title: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A sortable table; its first `n_keys` columns name the row.

    marks: one class per row for rows that need care, such as "underfits".
    """

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Printed]]
    n_keys: int = 1
    marks: Sequence[str] = ()
    note: Sequence[str | Printed] = ()
    omitted: int = 0
    file: str = ""

    @property
    def searchable(self) -> bool:
        return len(self.rows) > 12


@dataclass(frozen=True)
class Shown:
    """A column made from a field of the analysis: the field, its heading, what it means."""

    key: str
    label: str
    title: str = ""
    words: Callable[[Row], str] | None = field(default=None)


def word(text: str, sort: float | str | None = None, title: str = "") -> Printed:
    """Text that is no number."""
    return Printed(text, sort=sort if sort is not None else text, title=title)


def run_words(record: RunRecord) -> list[Printed]:
    """Run, target, method, learning rate and seed."""
    return [
        word(record.run_id),
        word(record.target),
        word(record.method),
        word(rate_text(record.learning_rate), record.learning_rate),
        word(str(record.seed), record.seed),
    ]


def analysis_table(
    study: Study,
    name: str,
    caption: str,
    shown: Sequence[Shown],
    *,
    rows: Iterable[tuple[int, Row]],
    n_keys: int,
    table_id: str = "",
    note: str | Sentence = "",
) -> Table | None:
    """A table from rows of the analysis; None where there are none.

    What says how sure a number is and is known in no row is left out, and so its column.
    """
    found = list(rows)
    if not found:
        return None
    shown = [c for c in shown if c.key not in HOW_SURE or _somewhere(found, c.key)]
    lines = []
    for position, row in found[:MAX_ROWS]:
        lines.append(
            [
                _printed(study, name, position, row, column, key=i < n_keys)
                for i, column in enumerate(shown)
            ]
        )
    columns = [Column(c.label, c.title, numeric=c.words is None) for c in shown]
    return Table(
        table_id or name,
        caption,
        columns,
        lines,
        n_keys,
        note=[note] if isinstance(note, str) and note else note,
        omitted=max(0, len(found) - MAX_ROWS),
        file=f"tables/{name}.csv",
    )


def _somewhere(rows: Sequence[tuple[int, Row]], key: str) -> bool:
    field = INTERVALS.get(key, (key,))[0]
    return any(row.get(field) is not None for _, row in rows)


def _printed(
    study: Study, name: str, position: int, row: Row, column: Shown, *, key: bool
) -> Printed:
    runs = study.runs_of(row, column.key)
    if column.words is None:
        return of_row(name, position, row, column.key, runs)
    text = column.words(row)
    where = f"{name}[{position}].{column.key}"
    return word(text) if key else Printed(text, where, DERIVED, runs, text)


def name_of(key: str, otherwise: str = UNDEFINED) -> Callable[[Row], str]:
    """The text of a field as it is."""
    return lambda row: otherwise if row.get(key) is None else str(row[key])


def metric_of(key: str = "metric") -> Callable[[Row], str]:
    """The label and unit of the metric a field names."""
    return lambda row: UNDEFINED if row[key] is None else metric(str(row[key])).axis


def place_columns(study: Study) -> list[Shown]:
    """Target, and the backbone where there are several."""
    backbone = Shown("backbone", "Backbone", words=name_of("backbone"))
    target = Shown("target", "Target", words=name_of("target", "all targets"))
    return [backbone, target] if len(study.backbones) > 1 else [target]


def cell_table(
    study: Study,
    metrics: Sequence[str],
    *,
    table_id: str,
    caption: str,
    note: str = "",
    place: Place | None = None,
) -> Table:
    """Mean ± SD of some metrics of every cell, or those of a place; what does not fit is marked."""
    heads = [Column("Target", numeric=False), Column("Method", numeric=False)]
    if len(study.backbones) > 1:
        heads.insert(0, Column("Backbone", numeric=False))
    heads += [Column("LR", "learning rate"), Column("n", "runs in the cell")]
    order = list(study.looks)
    cells = sorted(
        study.cells if place is None else study.cells_of(place),
        key=lambda cell: (study.places.index(cell.place), order.index(cell.method), cell.lr),
    )
    known = read_on_images(metrics, [study.cells[cell] for cell in cells])
    columns = [*heads, *metric_columns(study, metrics, known)]
    rows = [_cell_row(study, cell, metrics, known) for cell in cells[:MAX_ROWS]]
    marks = [study.mark(cell) for cell in cells[:MAX_ROWS]]
    omitted = max(0, len(cells) - MAX_ROWS)
    n_keys = len(heads) - 1
    notes = [note] if note else []
    file = "tables/cells.csv"
    return Table(table_id, caption, columns, rows, n_keys, marks, notes, omitted, file)


def read_on_images(metrics: Sequence[str], found: Sequence[ByMetric]) -> frozenset[str]:
    """The metrics whose error from images is known in some of the rows."""
    rows = (row[name] for row in found for name in metrics if name in row)
    return frozenset(row["metric"] for row in rows if row["image_se"] is not None)


def metric_columns(
    study: Study, metrics: Sequence[str], known: Collection[str]
) -> Iterator[Column]:
    """A column per metric, and one more for its error from images where that is known."""
    for name in metrics:
        yield Column(metric(name).axis, f"{study.averaged}: {name}")
        if name in known:
            unit = metric(name).difference_unit
            yield Column("± images", f"{unit}: standard error from drawing images; how many")


def metric_values(
    study: Study, metrics: Sequence[str], known: Collection[str], own: ByMetric
) -> Iterator[Printed]:
    """The numbers of one row under `metric_columns`."""
    for name in metrics:
        yield of_cell(own.get(name), study.index)
        if name in known:
            yield _image_error(own.get(name, {}), study.index)


def _image_error(row: Row, index: RunIndex) -> Printed:
    if row.get("image_se") is None:
        return Printed(UNDEFINED, title="which images were right is not recorded")
    shown = metric(row["metric"])
    se, n = fixed(row["image_se"] * shown.scale, shown.decimals or 1), row["n_images"]
    return Printed(f"{se} ({n:,})", "", DERIVED, index.encode(row["run_ids"]), row["image_se"])


def _cell_row(
    study: Study, cell: CellId, metrics: Sequence[str], known: Collection[str]
) -> list[Printed]:
    rows = study.cells[cell]
    keys = [word(cell.place.target), word(cell.method)]
    if len(study.backbones) > 1:
        keys.insert(0, word(cell.place.backbone))
    ids = list(dict.fromkeys(run_id for row in rows.values() for run_id in row["run_ids"]))
    runs = study.index.encode(ids)
    count = Printed(str(len(ids)), "", COUNT, runs, len(ids))
    values = metric_values(study, metrics, known, rows)
    return [*keys, word(rate_text(cell.lr), cell.lr), count, *values]


__all__ = [
    "MAX_ROWS",
    "Column",
    "Shown",
    "Table",
    "analysis_table",
    "cell_table",
    "metric_columns",
    "metric_of",
    "metric_values",
    "name_of",
    "place_columns",
    "read_on_images",
    "word",
]
