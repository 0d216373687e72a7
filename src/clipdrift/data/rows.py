"""What a table says about images, row by row, whatever kind of file it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.data.cells import written_labels
from clipdrift.data.decode import UnreadableImageError
from clipdrift.data.labels import number_labels
from clipdrift.data.parts import DatasetParts, ImagePart, Loaded
from clipdrift.errors import DataError, Fault, collecting
from clipdrift.spec.datasets import DatasetSpec


@dataclass(frozen=True)
class Rows:
    """The rows of one part; no image is decoded yet.

    where: they come from, for messages. cells: [columns][N] of what was asked for beside the image.
    names: N, for messages. load: row -> image. content: row -> equal for rows that hold one image.
    identity: hash of where they come from. class_names: where the file has names for the numbers of
    its first column.
    """

    where: str
    cells: list[list[Any]]
    names: Sequence[str]
    load: Callable[[int], Loaded]
    content: Callable[[int], object]
    identity: str
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)


def asked_columns(spec: DatasetSpec) -> list[tuple[str, str]]:
    """Key of the study and name of each column that is read beside the image."""
    if spec.caption_columns:
        return [("caption_column", name) for name in spec.caption_columns]
    if spec.labels_column is not None:
        return [("labels_column", spec.labels_column)]
    return [("label_column", spec.label_column)]


def content_of(source: Callable[[int], bytes | Path], row: int) -> object:
    """Equal for equal bytes, or one file.

    A row without an image is one of its own, and is told when images are read.
    """
    try:
        found = source(row)
    except UnreadableImageError:
        return row
    return hashlib.sha256(found).digest() if isinstance(found, bytes) else str(found)


def labelled_parts(parts: Mapping[str, Rows], spec: DatasetSpec) -> DatasetParts:
    """Rows as images of classes, one each.

    Raises:
        DataError: bad labels.
    """
    written, faults = {}, list[Fault]()
    for part, rows in parts.items():
        where = f"{rows.where}, column {spec.label_column}"
        with collecting(faults):
            written[part] = written_labels(rows.cells[0], rows.class_names, where=where)
    if faults:
        raise DataError(faults)
    labels, names = number_labels(written, spec.class_names, where=spec.name)
    return DatasetParts(
        {
            part: ImagePart(labels[part], rows.names, names, rows.load, rows.identity)
            for part, rows in parts.items()
        }
    )
