"""What a table holds about one image, and how labels in a column are told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipdrift.data.decode import UnreadableImageError
from clipdrift.data.labels import WrittenLabels
from clipdrift.errors import DataError, Fault


def require_columns(have: Sequence[str], image: str, label: str, *, where: str) -> None:
    """Raises DataError for each of the two columns that is not among those of a table."""
    faults = [
        Fault(
            f"{where}.{option}",
            f"a column of the data ({', '.join(have) or 'none'})",
            repr(name),
            f"Set {option} to the column that holds the {option.split('_')[0]}s",
        )
        for option, name in (("image_column", image), ("label_column", label))
        if name not in have
    ]
    if faults:
        raise DataError(faults)


def image_source(cell: Any, root: Path) -> bytes | Path:
    """Encoded bytes or a file from raw bytes, a path, or a {bytes, path} struct.

    Raises:
        UnreadableImageError: the cell is empty or of another kind.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, str) and cell:
        return root / cell
    raise UnreadableImageError("no image in this row" if not cell else f"a {type(cell).__name__}")


def leaves_folder(written: str) -> bool:
    """Whether a relative path climbs out of the folder it starts from.

    Absolute paths and links are the word of whoever wrote the table, and are followed.
    """
    return os.path.normpath(written).split(os.sep)[0] == os.pardir


def require_inside(written: Sequence[str], root: Path, *, where: str) -> None:
    """Raises DataError if relative image paths leave the folder they start from."""
    outside = [path for path in written if leaves_folder(path)]
    if outside:
        raise DataError(
            Fault(
                where,
                f"relative image paths that stay inside {root}",
                f"{', '.join(outside[:5])} ({len(outside)} in all)",
                "Move the images, or write absolute paths",
            )
        )


def written_labels(
    values: Sequence[Any], schema_names: tuple[str, ...] | None, *, where: str
) -> WrittenLabels:
    """Labels of one column: all whole numbers or all text.

    Raises:
        DataError: empty cells, fractions, or anything else, with the first rows named.
    """
    kind = str if any(isinstance(value, str) for value in values) else int
    wrong = [
        (row, value)
        for row, value in enumerate(values)
        if not isinstance(value, kind) or isinstance(value, bool) or value == ""
    ]
    if wrong:
        shown = ", ".join(f"{value!r} in row {row}" for row, value in wrong[:5])
        raise DataError(
            Fault(
                where,
                "a whole number or a class name in every row",
                f"{shown} ({len(wrong)} rows in all)",
                "Correct or remove these rows",
            )
        )
    return WrittenLabels(list(values), schema_names)
