"""Columns of a Parquet file, bounded by what its footer says before any of them is read.

A few kilobytes can hold one long text and say that ten million rows have it, of which the footer
knows the packed size alone. A column is therefore read piece by piece, no piece of which can be
large, and only up to what a file of its size may hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from clipdrift.errors import DataError, Fault

if TYPE_CHECKING:
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

MAX_ROWS = 10_000_000
FREE_BYTES = 256_000_000
"""What a column of a row group may unpack to whatever it takes packed."""
MOST_UNPACKED = 20
"""Times its packed size that a larger column may unpack to; images hardly shrink at all."""


TOUCH = """
import json, sys
import pyarrow.parquet as pq
try:
    about = pq.read_metadata(json.load(sys.stdin))
    for group in range(about.num_row_groups):
        for column in range(about.row_group(group).num_columns):
            about.row_group(group).column(column)
except Exception:
    pass
"""
COMMAND = [sys.executable, "-I", "-c", TOUCH]
"""Looks at a footer as `require_bounded` does, and reads no package of the folder it starts in."""
SECONDS = 60.0
_TOUCHED: set[tuple[str, int, int]] = set()


def require_footer(path: Path, where: str) -> None:
    """Look at a footer in a process apart first, once for each file.

    pyarrow ends the process, past every handler, where counts in the footer do not fit its columns.

    Raises:
        DataError: a footer that cannot be looked at.
    """
    status = path.stat()
    mark = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
    if mark in _TOUCHED:
        return
    given = json.dumps(mark[0]).encode()
    try:
        ended = subprocess.run(COMMAND, input=given, capture_output=True, timeout=SECONDS)
        got = "a footer that ends the process that reads it" if ended.returncode < 0 else ""
    except subprocess.TimeoutExpired:
        got = f"a footer that takes more than {SECONDS:g} s"
    if got:
        raise DataError(Fault(where, "a Parquet file", got, "Write or download it again"))
    _TOUCHED.add(mark)


@contextmanager
def parquet_faults(where: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, at its footer or at any page of it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        fault = Fault(where, "a Parquet file", first, "Write or download it again")
        raise DataError(fault) from error


def require_bounded(file: ParquetFile, size: int, columns: tuple[str, ...], where: str) -> None:
    """Raises DataError for more rows than are read, or columns that unpack to too much.

    Args:
        size: bytes of the file; a footer may claim anything of its columns.
    """
    rows = file.metadata.num_rows
    if rows > MAX_ROWS:
        step = "Split the file, or keep the rows you need"
        raise DataError(Fault(where, f"at most {MAX_ROWS:,} rows", f"{rows:,}", step))
    for group in range(file.metadata.num_row_groups):
        for column in columns:
            unpacked, most = _unpacked(file, group, column), _most(file, group, column)
            if _packed(file, group, column) > size:
                got = f"column {column} of more bytes than the file has"
                raise DataError(Fault(where, "a Parquet file", got, "Write it again"))
            if unpacked > most:
                raise DataError(_too_much(where, column, f"{unpacked / 1e6:,.0f} MB", most))


def read_group(file: ParquetFile, group: int, column: str, where: str) -> list[Array]:
    """The cells of a column, or of a leaf such as `image.path`, in one row group.

    Raises:
        DataError: they unpack to more than a file of this size may hold.
    """
    most, held = _most(file, group, column), 0
    # No cell is larger than its column is unpacked, whatever dictionary it is taken from.
    rows = min(65_536, max(1, FREE_BYTES // max(1, _unpacked(file, group, column))))
    pieces = []
    for batch in file.iter_batches(rows, row_groups=[group], columns=[column]):
        pieces.append(batch.column(0))
        held += pieces[-1].nbytes
        if held > most:
            raise DataError(_too_much(where, column, "more", most))
    return pieces


def _leaves(file: ParquetFile, group: int, column: str) -> list[Any]:
    found = file.metadata.row_group(group)
    chunks = map(found.column, range(found.num_columns))
    return [one for one in chunks if f"{one.path_in_schema}.".startswith(f"{column}.")]


def _unpacked(file: ParquetFile, group: int, column: str) -> int:
    return sum(int(chunk.total_uncompressed_size) for chunk in _leaves(file, group, column))


def _packed(file: ParquetFile, group: int, column: str) -> int:
    return sum(int(chunk.total_compressed_size) for chunk in _leaves(file, group, column))


def _most(file: ParquetFile, group: int, column: str) -> int:
    return max(FREE_BYTES, MOST_UNPACKED * _packed(file, group, column))


def _too_much(where: str, column: str, got: str, most: int) -> Fault:
    expected = f"row groups that unpack to at most {most / 1e6:,.0f} MB in column {column}"
    return Fault(where, expected, got, "Write smaller row groups, or texts of a usual length")


def cells_of(file: ParquetFile, column: str, where: str) -> list[Any]:
    """The value of each row in a column, or in a leaf such as `image.path`."""
    out: list[Any] = []
    for group in range(file.metadata.num_row_groups):
        for piece in read_group(file, group, column, where):
            out += _values(piece)
    return out


def _values(piece: Array) -> list[Any]:
    """Of an array of any type; what is in a dictionary becomes Python's once."""
    import pyarrow as pa

    if pa.types.is_struct(piece.type):
        return _values(piece.flatten()[0])
    if pa.types.is_dictionary(piece.type):
        values = piece.dictionary.to_pylist()
        return [None if i is None else values[i] for i in piece.indices.to_pylist()]
    return list(piece.to_pylist())


def texts_of(file: ParquetFile, column: str, where: str) -> list[str | None]:
    """The text of each row of a column of texts, or of the `path` in a column of structs.

    None where a row has none. Every type that Arrow writes text in is read, by its values.
    """
    import pyarrow as pa

    kind = file.schema_arrow.field(column).type
    leaf = column
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        leaf = f"{column}.path"
    elif pa.types.is_struct(kind) or _is_binary(kind):
        return [None] * int(file.metadata.num_rows)
    return [cell if isinstance(cell, str) else None for cell in cells_of(file, leaf, where)]


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary")
    return any(getattr(pa.types, test)(held) for test in tests)


def has_all_bytes(file: ParquetFile, column: str) -> bool:
    """Whether no row needs its path: the file counts empty cells itself."""
    groups = range(file.metadata.num_row_groups)
    chunks = [chunk for group in groups for chunk in _leaves(file, group, f"{column}.bytes")]
    counts = [chunk.statistics.null_count if chunk.statistics else None for chunk in chunks]
    return bool(counts) and not any(count is None or count > 0 for count in counts)


def schema_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel column, which Hugging Face keeps in the schema's metadata."""
    text = (schema.metadata or {}).get(b"huggingface", b"null")
    try:
        names = json.loads(text)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


class BytesColumn:
    """Encoded images of one column, a row group in memory at a time; several threads may ask."""

    def __init__(self, file: ParquetFile, name: str, where: str) -> None:
        self._file, self._name, self._where, self._lock = file, name, where, Lock()
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._group, self._cells = -1, None

    def bytes_of(self, row: int) -> bytes | None:
        """What a row holds, also as `bytes` of a struct; None where it holds no bytes."""
        import pyarrow as pa

        group = bisect_right(self._starts, row) - 1
        with self._lock:
            if group != self._group:
                self._group, self._cells = -1, None  # one group at a time, also while reading
                pieces = read_group(self._file, group, self._name, self._where)
                self._cells, self._group = pa.chunked_array(pieces), group
            assert self._cells is not None
            cell = self._cells[row - self._starts[group]].as_py()
        held = cell.get("bytes") if isinstance(cell, Mapping) else cell
        return held if isinstance(held, bytes) else None
