"""Tables of the page: rows of the analysis as printed numbers, each with the runs behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.rows import TEXTS, UNDEFINED, Row, Said, rate_text, said
from clipdrift.records import RunRecord
from clipdrift.report.digits import fixed
from clipdrift.report.metrics import metric
from clipdrift.report.printed import COUNT, DERIVED, Printed, RunIndex, field_text, of_cell
from clipdrift.report.source import CellId, Place, Study

MAX_ROWS = 400
ByMetric = Mapping[str, CellMetric]
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Column:
    label: str
    title: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A sortable table; its first `n_keys` columns name the row.

    marks: one class per row for rows that need care, such as "underfits".
    n_all: rows that there are, where not all of them are shown.
    """

    kind: ClassVar = "table"
    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Printed]]
    n_keys: int = 1
    marks: Sequence[str] = ()
    note: Sequence[str | Printed] = ()
    n_all: int = 0
    file: str = ""

    @property
    def omitted(self) -> int:
        """Rows that there are beyond those that are shown."""
        return max(0, self.n_all - len(self.rows))

    @property
    def searchable(self) -> bool:
        return len(self.rows) > 12


def text_columns(*labels: str) -> list[Column]:
    return [Column(label, numeric=False) for label in labels]


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


def listing(
    study: Study,
    kind: type[R],
    caption: str,
    rows: Sequence[R] | None = None,
    *,
    without: Collection[str] = (),
    table_id: str = "",
    note: str = "",
) -> Table | None:
    """A table of rows of the analysis; None where there are none.

    Its columns are the fields that have a heading. What says how sure a number is and is known in
    no row is left out, and so its column.

    Args:
        rows: those to show, default all of the kind.
        without: fields whose columns are left out.
    """
    found = study.rows(kind) if rows is None else rows
    if not found:
        return None
    shown = {
        name: about
        for name, (about, _) in said(kind).items()
        if about.head
        and name not in without
        and (name != "backbone" or len(study.backbones) > 1)
        and not (about.sure and all(getattr(row, name) is None for row in found))
    }
    columns = [Column(a.head, a.words, numeric=a.form not in TEXTS) for a in shown.values()]
    lines = [
        [_field(study, row, name, about) for name, about in shown.items()]
        for row in found[:MAX_ROWS]
    ]
    return Table(
        table_id or kind.table,
        caption,
        columns,
        lines,
        sum(about.key for about in shown.values()),
        note=[note] if note else [],
        n_all=len(found),
        file=f"tables/{kind.table}.csv",
    )


def _field(study: Study, row: Row, name: str, about: Said) -> Printed:
    if about.form not in TEXTS:
        return study.printed(row, name)
    text = field_text(row, name)
    if about.key:
        return word(text)
    return Printed(text, study.where(row, name), DERIVED, study.runs_of(row, name), text)


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
    several = ["Backbone"] if len(study.backbones) > 1 else []
    heads = text_columns(*several, "Target", "Method")
    heads += [Column("LR", "learning rate"), Column("n", "runs in the cell")]
    order = list(study.looks)
    cells = sorted(
        study.cells if place is None else study.cells_of(place),
        key=lambda cell: (
            study.places.index(cell.place),
            order.index(cell.method),
            cell.learning_rate,
        ),
    )
    known = read_on_images(metrics, [study.cells[cell] for cell in cells])
    columns = [*heads, *metric_columns(study, metrics, known)]
    rows = [_cell_row(study, cell, metrics, known) for cell in cells[:MAX_ROWS]]
    marks = [study.mark(cell) for cell in cells[:MAX_ROWS]]
    n_keys = len(heads) - 1
    notes = [note] if note else []
    file = "tables/cells.csv"
    return Table(table_id, caption, columns, rows, n_keys, marks, notes, len(cells), file)


def read_on_images(metrics: Sequence[str], found: Sequence[ByMetric]) -> frozenset[str]:
    """The metrics whose error from images is known in some of the rows."""
    rows = (row[name] for row in found for name in metrics if name in row)
    return frozenset(row.metric for row in rows if row.image_se is not None)


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
            yield _image_error(own.get(name), study.index)


def _image_error(row: CellMetric | None, index: RunIndex) -> Printed:
    if row is None or row.image_se is None:
        return Printed(UNDEFINED, title="which images were right is not recorded")
    shown = metric(row.metric)
    se = fixed(row.image_se * shown.scale, shown.decimals or 1)
    text = f"{se} ({row.n_images:,})"
    return Printed(text, "", DERIVED, index.encode(row.run_ids), row.image_se)


def _cell_row(
    study: Study, cell: CellId, metrics: Sequence[str], known: Collection[str]
) -> list[Printed]:
    rows = study.cells[cell]
    keys = [word(cell.place.target), word(cell.method)]
    if len(study.backbones) > 1:
        keys.insert(0, word(cell.place.backbone))
    ids = list(dict.fromkeys(run_id for row in rows.values() for run_id in row.run_ids))
    runs = study.index.encode(ids)
    count = Printed(str(len(ids)), "", COUNT, runs, len(ids))
    values = metric_values(study, metrics, known, rows)
    return [*keys, word(rate_text(cell.learning_rate), cell.learning_rate), count, *values]
