"""Images listed in CSV or Parquet files, one row an image.

An image is a path (relative to the folder of the file, which it may not leave, or absolute), its
encoded bytes, or a struct {bytes, path} as Hugging Face writes it. Rows are counted from 0.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.data.cells import (
    image_source,
    require_columns,
    require_inside,
    written_labels,
)
from clipdrift.data.decode import open_image
from clipdrift.data.labels import WrittenLabels, number_labels
from clipdrift.data.naming import whole_number
from clipdrift.data.parquet import (
    BytesColumn,
    cells_of,
    has_all_bytes,
    parquet_faults,
    require_bounded,
    schema_names,
    texts_of,
)
from clipdrift.data.parts import DatasetParts, ImagePart, Loaded, file_stamp, identity_of
from clipdrift.errors import ClipdriftError, DataError, Fault
from clipdrift.paths import read_file
from clipdrift.spec.datasets import DatasetSpec

MAX_CSV_BYTES = 200_000_000
"""About ten times as much in memory once it is rows."""

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


def column_names(path: Path, where: str) -> list[str]:
    """The header of a CSV or Parquet file.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".csv":
        return _csv_rows(path, where)[0]
    with parquet_faults(where):
        return list(pq.read_schema(path).names)


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
        load=lambda row: open_image(image_source(None, images[row], root)),
        identity=identity_of(
            "csv",
            [file_stamp(path), spec.image_column, spec.label_column],
            [file_stamp(root / image) for image in images],
        ),
    )


def _csv_rows(path: Path, where: str) -> tuple[list[str], list[list[str]]]:
    try:
        text = read_file(path, MAX_CSV_BYTES).decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            Fault(where, "comma-separated UTF-8 text", str(error), "Export it so")
        ) from error
    except OSError as error:
        raise DataError(
            Fault(where, "a file that can be read", str(error.strerror), "Check it")
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

    with parquet_faults(where):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        require_columns(schema.names, spec.image_column, spec.label_column, where=spec.name)
        columns = (spec.image_column, spec.label_column)
        require_bounded(file, path.stat().st_size, columns, where)
        labels = cells_of(file, spec.label_column, where)
        paths = texts_of(file, spec.image_column, where)
        # Beside bytes, a path is a name: where every row has bytes, no path is followed.
        followed = [None] * len(paths) if has_all_bytes(file, spec.image_column) else paths
    root, read = path.parent, [name for name in followed if name]
    require_inside(read, root, where=where)
    images = BytesColumn(file, spec.image_column, where)
    return _Table(
        labels=written_labels(
            labels,
            schema_names(schema, spec.label_column),
            where=f"{where}, column {spec.label_column}",
        ),
        names=[f"{path.name} row {row} {paths[row] or ''}".rstrip() for row in range(len(labels))],
        load=lambda row: open_image(image_source(images.bytes_of(row), followed[row], root)),
        identity=identity_of(
            "parquet",
            [file_stamp(path), spec.image_column, spec.label_column],
            [file_stamp(root / name) for name in read],
        ),
    )
