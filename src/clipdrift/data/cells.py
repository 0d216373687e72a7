"""What a table holds about one image, and how labels in a column are told apart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipdrift.data.decode import UnreadableImageError
from clipdrift.data.labels import WrittenLabels
from clipdrift.errors import DataError, Fault, brief
from clipdrift.paths import leads_out

LONGEST_PATH = 1024
"""Characters; systems take up to 4,096, of which a small picture written as text takes fewer."""
SHOWN = 200
"""Characters of a path in a message."""
FEWEST_CAPTIONS, CAPTION_WORDS = 8, 3
"""Rows from which on a column may be one of captions, and the words of a usual one."""


def require_columns(
    have: Sequence[str], image: str, beside: Sequence[tuple[str, str]], *, where: str
) -> None:
    """Raises DataError for each column that is not among those of a table.

    Args:
        image: column of the images. beside: key of the study and column of each other one.
    """
    faults = [
        Fault(
            f"{where}.{option}",
            f"a column of the data ({', '.join(have) or 'none'})",
            repr(name),
            f"Set {option} to the column that holds the {option.split('_')[0]}s",
        )
        for option, name in (("image_column", image), *beside)
        if name not in have
    ]
    if faults:
        raise DataError(faults)


def image_source(held: bytes | None, path: str | None, root: Path) -> bytes | Path:
    """The encoded bytes of a row, or else the file that its path leads to from a folder.

    Raises:
        UnreadableImageError: the row has neither.
    """
    if held is not None:
        return held
    if path:
        return root / path
    raise UnreadableImageError("no image in this row")


def require_inside(written: Sequence[str], root: Path, *, where: str) -> None:
    """Raises DataError if relative image paths leave the folder they start from, by `..` or a link,
    or are no paths but images written as text.

    Absolute paths are the word of whoever wrote the table, and are followed.
    """
    _require_paths(written, where)
    folders: dict[str, bool] = {}  # many images lie in one folder: its links are followed once
    outside = [path for path in written if not os.path.isabs(path) and _leaves(path, root, folders)]
    if outside:
        raise DataError(
            Fault(
                where,
                f"relative image paths that stay inside {root}, links followed",
                f"{', '.join(path[:SHOWN] for path in outside[:5])} ({len(outside)} in all)",
                "Move the images, or write absolute paths",
            )
        )


def _require_paths(written: Sequence[str], where: str) -> None:
    texts = [text for text in written if len(text) > LONGEST_PATH or text.startswith("data:image")]
    if texts:
        got = f"text such as {texts[0][:30]!r}... of {len(texts[0]):,} characters, as base64 is"
        step = "Write the images to files, or into a Parquet column of bytes"
        got += f" ({len(texts):,} in all)"
        raise DataError(Fault(where, "image paths", got, step))


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
    """Labels of one column: all whole numbers (`1.0` is one), or all text.

    Raises:
        DataError: empty cells, fractions, or anything else, with the first rows named; several
            labels in a cell, or captions.
    """
    if lists := [value for value in values if isinstance(value, list)]:
        raise DataError(_several(where, f"lists such as {brief(lists[0])}"))
    kind = str if any(isinstance(value, str) for value in values) else int
    if kind is int:
        values = [_whole(value) for value in values]
    wrong = [
        (row, value)
        for row, value in enumerate(values)
        if not isinstance(value, kind) or isinstance(value, bool) or value == ""
    ]
    if wrong:
        shown = ", ".join(f"{brief(value)} in row {row}" for row, value in wrong[:5])
        raise DataError(
            Fault(
                where,
                "a whole number or a class name in every row",
                f"{shown} ({len(wrong)} rows in all)",
                "Correct or remove these rows",
            )
        )
    if kind is str:
        _require_one_class_each(values, where)
    return WrittenLabels(list(values), schema_names)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _require_one_class_each(labels: Sequence[str], where: str) -> None:
    """Raises DataError for a column of several labels a row, or of captions."""
    counts = Counter(labels)
    for mark in "|;,":
        lists = {one: [part.strip() for part in one.strip("[]").split(mark)] for one in counts}
        pieces = Counter(part for parts in lists.values() for part in set(parts))
        joined = [one for one in lists if mark in one and min(pieces[p] for p in lists[one]) > 1]
        if joined:
            got = f"several, joined by {mark!r}: {', '.join(map(brief, joined[:5]))}"
            raise DataError(_several(where, got))
    words = sorted(label.count(" ") + 1 for label in counts)[len(counts) // 2]
    if len(labels) >= FEWEST_CAPTIONS and 2 * len(counts) > len(labels) and words >= CAPTION_WORDS:
        got = f"{len(counts):,} texts in {len(labels):,} rows, as captions are, such as "
        step = "Name the column of class names; or, to train on captions, set caption_column to it"
        raise DataError(Fault(where, "class names that images share", got + brief(labels[0]), step))


def _several(where: str, got: str) -> Fault:
    step = "Keep one class a row, or set labels_column; of images with captions set caption_column"
    return Fault(where, "one class name in every row", got, step)
