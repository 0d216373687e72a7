"""Images listed in CSV, JSON Lines or Parquet files, one row an image.

An image is a path (relative to the folder of the file, which it may not leave, or absolute), its
encoded bytes, or a struct {bytes, path} as Hugging Face writes it. Rows are counted from 0.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipdrift.data.cells import image_source, require_columns, require_inside
from clipdrift.data.decode import open_image
from clipdrift.data.parquet import (
    BytesColumn,
    cells_of,
    has_all_bytes,
    parquet_faults,
    require_bounded,
    require_footer,
    schema_names,
    texts_of,
)
from clipdrift.data.parts import file_stamp, identity_of
from clipdrift.data.rows import Rows, asked_columns, content_of
from clipdrift.data.shards import labels_of, shard_rows
from clipdrift.errors import DataError, Fault, brief, collecting
from clipdrift.paths import read_file
from clipdrift.spec.datasets import DatasetSpec

MAX_CSV_BYTES = 200_000_000
"""About ten times as much in memory once it is rows."""

_READ_TEXT = (".csv", ".jsonl", ".ndjson")


def table_rows(spec: DatasetSpec) -> dict[str, Rows]:
    """The rows of each part that `spec.files` names.

    Raises:
        DataError: a missing or malformed file, a missing column, an image path that leaves the
            folder; the faults of both files at once.
    """
    tables: dict[str, Rows] = {}
    faults: list[Fault] = []
    for part, name in (spec.files.model_dump() if spec.files else {}).items():
        if name is None:
            continue
        with collecting(faults):
            tables[part] = _read(Path(name).expanduser(), spec, f"{spec.name}.files.{part}")
    if faults:
        raise DataError(faults)
    return tables


def column_names(path: Path, where: str) -> list[str]:
    """The columns of a CSV, JSON Lines or Parquet file.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow.parquet as pq

    if path.suffix.lower() in _READ_TEXT:
        return _text_rows(path, where)[0]
    with parquet_faults(where):
        return list(pq.read_schema(path).names)


def _read(path: Path, spec: DatasetSpec, where: str) -> Rows:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return shard_rows(path, spec, where)
    readers = dict.fromkeys(_READ_TEXT, _read_text) | dict.fromkeys(
        (".parquet", ".pq"), _read_parquet
    )
    if suffix not in readers:
        step = "Use folder: for class folders" if os.path.isdir(path) else "Convert it"
        kinds = "a .csv, .jsonl or .parquet file, or .tar shards"
        raise DataError(Fault(where, kinds, str(path), step))
    if not os.path.isfile(path):
        raise DataError(Fault(where, "a file", f"{path}, which is not there", "Check the path"))
    return readers[suffix](path, spec, where)


def _read_text(path: Path, spec: DatasetSpec, where: str) -> Rows:
    header, rows = _text_rows(path, where)
    asked = asked_columns(spec)
    require_columns(header, spec.image_column, asked, where=spec.name)
    place = {name: header.index(name) for name in header}
    written = [row[place[spec.image_column]] for row in rows]
    images = [one.strip() if isinstance(one, str) else "" for one in written]
    cells = [[_stripped(row[place[name]]) for row in rows] for _, name in asked]
    if not spec.paired and not spec.several and all(isinstance(one, str) for one in cells[0]):
        cells = [labels_of(cells[0])]
    root = path.parent
    require_inside(images, root, where=where)
    return Rows(
        where=where,
        cells=cells,
        names=images if not spec.paired else [f"row {i} {one}" for i, one in enumerate(images)],
        load=lambda row: open_image(image_source(None, images[row], root)),
        content=lambda row: images[row] or row,
        identity=identity_of(
            "csv",
            [file_stamp(path), spec.image_column, *(name for _, name in asked)],
            [file_stamp(root / image) for image in images],
        ),
    )


def _stripped(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else cell


def _text_rows(path: Path, where: str) -> tuple[list[str], list[list[Any]]]:
    """Columns, and the cells of each row in their order; of a .csv all of them text."""
    return (_csv_rows if path.suffix.lower() == ".csv" else _json_rows)(path, where)


def _json_rows(path: Path, where: str) -> tuple[list[str], list[list[Any]]]:
    """Rows of JSON Lines; a key that a row lacks is null there."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_text_of(path, where).splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            got = f"{brief(line)} in line {number + 1}"
            raise DataError(Fault(where, "a JSON object in every line", got, "Export it so"))
        rows.append(row)
    if not rows:
        raise DataError(Fault(where, "rows", "an empty file", "Check the export"))
    header = [*dict.fromkeys(name for row in rows for name in row)]
    return header, [[row.get(name) for name in header] for row in rows]


def _csv_rows(path: Path, where: str) -> tuple[list[str], list[list[str]]]:
    text = _text_of(path, where)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
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


def _text_of(path: Path, where: str) -> str:
    try:
        return read_file(path, MAX_CSV_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "comma-separated UTF-8 text" if path.suffix.lower() == ".csv" else "UTF-8 text"
        raise DataError(Fault(where, kind, str(error), "Export it so")) from error
    except OSError as error:
        raise DataError(
            Fault(where, "a file that can be read", str(error.strerror), "Check it")
        ) from error


def _read_parquet(path: Path, spec: DatasetSpec, where: str) -> Rows:
    asked = asked_columns(spec)
    return parquet_rows(path, spec.image_column, asked, where=where, name=spec.name)


def parquet_rows(
    path: Path, image_column: str, asked: Sequence[tuple[str, str]], *, where: str, name: str
) -> Rows:
    """The rows of a Parquet file.

    Args:
        asked: of each column beside the image, what it is for and its name. name: of the dataset.

    Raises:
        DataError: a damaged file, a missing column, an image path that leaves the folder.
    """
    import pyarrow.parquet as pq

    require_footer(path, where)
    with parquet_faults(where):
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        require_columns(schema.names, image_column, asked, where=name)
        columns = [column for _, column in asked]
        require_bounded(file, path.stat().st_size, (image_column, *columns), where)
        cells = [cells_of(file, column, where) for column in columns]
        paths = texts_of(file, image_column, where)
        # Beside bytes, a path is a name: where every row has bytes, no path is followed.
        followed = [None] * len(paths) if has_all_bytes(file, image_column) else paths
    root, read = path.parent, [text for text in followed if text]
    require_inside(read, root, where=where)
    images = BytesColumn(file, image_column, where)

    def source(row: int) -> bytes | Path:
        return image_source(images.bytes_of(row), followed[row], root)

    return Rows(
        where=where,
        cells=cells,
        names=[f"{path.name} row {row} {text or ''}".rstrip() for row, text in enumerate(paths)],
        load=lambda row: open_image(source(row)),
        content=lambda row: content_of(source, row),
        identity=identity_of(
            "parquet",
            [file_stamp(path), image_column, *columns],
            [file_stamp(root / text) for text in read],
        ),
        class_names=schema_names(schema, columns[0]) if columns else None,
    )
