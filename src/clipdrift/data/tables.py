"""Images listed in CSV or Parquet files, one row an image.

An image is a path (relative to the folder of the file, which it may not leave, or absolute), its
encoded bytes, or a struct {bytes, path} as Hugging Face writes it. Rows are counted from 0.
"""

from __future__ import annotations

import csv
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from clipdrift.data.cells import (
    image_source,
    require_columns,
    require_inside,
    written_labels,
)
from clipdrift.data.decode import open_image
from clipdrift.data.labels import WrittenLabels, number_labels
from clipdrift.data.naming import whole_number
from clipdrift.data.parts import DatasetParts, ImagePart, Loaded, file_stamp, identity_of
from clipdrift.errors import ClipdriftError, DataError, Fault
from clipdrift.spec.datasets import DatasetSpec

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_Loader = Callable[[int], Loaded]


@dataclass(frozen=True)
class _Table:
    """One file: its labels as written, a name and a loader for each row, and its identity."""

    labels: WrittenLabels
    names: Sequence[str]
    load: _Loader
    identity: str


def open_tables(spec: DatasetSpec) -> DatasetParts:
    """The parts that `spec.files` names.

    Raises:
        DataError: a missing or malformed file, a missing column, bad labels, an image path that
            leaves the folder; the faults of both files at once.
    """
    tables: dict[str, _Table] = {}
    faults: list[Fault] = []
    for part, name in (spec.files.model_dump() if spec.files else {}).items():
        if name is None:
            continue
        try:
            tables[part] = _read(Path(name).expanduser(), spec, f"{spec.name}.files.{part}")
        except ClipdriftError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    written = {part: table.labels for part, table in tables.items()}
    labels, names = number_labels(written, spec.class_names, where=spec.name)
    return DatasetParts(
        {
            part: ImagePart(labels[part], table.names, names, table.load, table.identity)
            for part, table in tables.items()
        }
    )


def _read(path: Path, spec: DatasetSpec, where: str) -> _Table:
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".pq": _read_parquet}
    if path.suffix.lower() not in readers:
        step = "Use folder: for class folders" if os.path.isdir(path) else "Convert it"
        raise DataError(Fault(where, "a .csv or .parquet file", str(path), step))
    if not os.path.isfile(path):
        raise DataError(Fault(where, "a file", f"{path}, which is not there", "Check the path"))
    return readers[path.suffix.lower()](path, spec, where)


def _read_csv(path: Path, spec: DatasetSpec, where: str) -> _Table:
    header, rows = _csv_rows(path, where)
    require_columns(header, spec.image_column, spec.label_column, where=spec.name)
    images = [row[header.index(spec.image_column)].strip() for row in rows]
    labels: list[Any] = [row[header.index(spec.label_column)].strip() for row in rows]
    numbers = [whole_number(label) for label in labels]
    if None not in numbers:
        labels = numbers
    root = path.parent
    require_inside(images, root, where=where)
    return _Table(
        labels=written_labels(labels, None, where=f"{where}, column {spec.label_column}"),
        names=images,
        load=lambda row: open_image(image_source(images[row], root)),
        identity=identity_of(
            "csv",
            [file_stamp(path), spec.image_column, spec.label_column],
            [file_stamp(root / image) for image in images],
        ),
    )


def _csv_rows(path: Path, where: str) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = [line for line in csv.reader(handle, strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            Fault(where, "comma-separated UTF-8 text", str(error), "Export it so")
        ) from error
    if not lines:
        raise DataError(Fault(where, "a header and rows", "an empty file", "Check the export"))
    header = [name.strip() for name in lines[0]]
    uneven = [row for row, line in enumerate(lines[1:]) if len(line) != len(header)]
    if uneven:
        raise DataError(
            Fault(
                where,
                f"{len(header)} fields in every row, as in the header",
                f"{len(lines[1 + uneven[0]])} in row {uneven[0]} ({len(uneven)} such rows)",
                "Quote fields that hold a comma",
            )
        )
    return header, lines[1:]


def _read_parquet(path: Path, spec: DatasetSpec, where: str) -> _Table:
    import pyarrow.parquet as pq

    with _parquet_faults(where):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        require_columns(schema.names, spec.image_column, spec.label_column, where=spec.name)
        labels = file.read(columns=[spec.label_column]).column(0).to_pylist()
        root, paths = path.parent, _paths_in(file, spec.image_column)
        whole = _has_all_bytes(file, spec.image_column)
    read = [] if whole else [name for name in paths if name]
    require_inside(read, root, where=where)
    images = _Column(file, spec.image_column)
    return _Table(
        labels=written_labels(
            labels,
            _schema_names(schema, spec.label_column),
            where=f"{where}, column {spec.label_column}",
        ),
        names=[f"{path.name} row {row} {paths[row] or ''}".rstrip() for row in range(len(labels))],
        load=lambda row: open_image(image_source(images.cell(row), root)),
        identity=identity_of(
            "parquet",
            [file_stamp(path), spec.image_column, spec.label_column],
            [file_stamp(root / name) for name in read],
        ),
    )


@contextmanager
def _parquet_faults(where: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, at its footer or at any page of it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        fault = Fault(where, "a Parquet file", first, "Write or download it again")
        raise DataError(fault) from error


def _schema_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel column, which Hugging Face keeps in the schema's metadata."""
    text = (schema.metadata or {}).get(b"huggingface", b"null")
    try:
        names = json.loads(text)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _paths_in(file: ParquetFile, column: str) -> list[str | None]:
    """The path of each row, None where there is none; bytes are not read."""
    import pyarrow as pa

    kind = file.schema_arrow.field(column).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return list(file.read(columns=[column]).column(0).to_pylist())
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        cells = file.read(columns=[f"{column}.path"]).column(0).to_pylist()
        return [cell["path"] if cell else None for cell in cells]
    return [None] * int(file.metadata.num_rows)


def _has_all_bytes(file: ParquetFile, column: str) -> bool:
    """Whether no row needs its path: the file counts empty cells itself."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    counts = [
        chunk.statistics.null_count if chunk.statistics else None
        for chunk in chunks
        if chunk.path_in_schema == f"{column}.bytes"
    ]
    return bool(counts) and not any(count is None or count > 0 for count in counts)


class _Column:
    """Cells of one column, a row group in memory at a time; several threads may ask."""

    def __init__(self, file: ParquetFile, name: str) -> None:
        self._file, self._name, self._lock = file, name, Lock()
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._group, self._cells = -1, None

    def cell(self, row: int) -> Any:
        group = bisect_right(self._starts, row) - 1
        with self._lock:
            if group != self._group:
                table = self._file.read_row_group(group, columns=[self._name])
                self._cells, self._group = table.column(0), group
            assert self._cells is not None
            return self._cells[row - self._starts[group]].as_py()
