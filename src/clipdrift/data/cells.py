"""What a table holds about one image, and how labels in a column are told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipdrift.data.decode import UnreadableImageError
from clipdrift.data.labels import WrittenLabels
from clipdrift.errors import DataError, Fault
from clipdrift.paths import leads_out


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


def require_inside(written: Sequence[str], root: Path, *, where: str) -> None:
    """Raises DataError if relative image paths leave the folder they start from, by `..` or a link.

    Absolute paths are the word of whoever wrote the table, and are followed.
    """
    folders: dict[str, bool] = {}  # many images lie in one folder: its links are followed once
    outside = [path for path in written if not os.path.isabs(path) and _leaves(path, root, folders)]
    if outside:
        raise DataError(
            Fault(
                where,
                f"relative image paths that stay inside {root}, links followed",
                f"{', '.join(outside[:5])} ({len(outside)} in all)",
                "Move the images, or write absolute paths",
            )
        )


def _leaves(path: str, root: Path, folders: dict[str, bool]) -> bool:
    whole = os.path.join(root, path)
    head, name = os.path.split(whole)
    folder = whole if name == os.pardir else head
    if folder not in folders:
        folders[folder] = leads_out(folder, root)
    return folders[folder] or (os.path.islink(whole) and leads_out(whole, root))


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
