"""Images with captions, from every kind of source: one entry an image, with all of its captions.

Rows of one image are one image, so that what is split later are images and never captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from clipdrift.data.beside import beside_rows
from clipdrift.data.builtin import open_builtin
from clipdrift.data.catalogue import catalogue, on_hub
from clipdrift.data.hub import hub_rows
from clipdrift.data.parts import PAIRS, DatasetParts, ImagePart, identity_of
from clipdrift.data.rows import Rows
from clipdrift.data.tables import table_rows
from clipdrift.errors import DataError, Fault, brief, collecting
from clipdrift.spec.datasets import PAIRED, DatasetSpec

SHOWN = 5
LONGEST = 5_000
"""Characters of a caption; text towers read some 77 tokens."""

_ROWS: dict[str, Callable[[DatasetSpec], dict[str, Rows]]] = {
    "folder": beside_rows,
    "files": table_rows,
    "hub": hub_rows,
}


def open_pairs(spec: DatasetSpec) -> DatasetParts:
    """The parts of a dataset whose images have captions; no image is decoded yet.

    Raises:
        DataError: what the source of its kind raises; a caption that is empty, no text or too long,
            an image without one, one caption for all images; the first rows of each named.
    """
    if spec.builtin in catalogue():
        spec = on_hub(spec)
    if spec.builtin is not None:
        parts = open_builtin(spec).parts
        if any(part.captions is None for part in parts.values()):
            step = "Use files, folder or hub, or leave caption_column out"
            expected = f"a builtin set whose images have captions ({', '.join(PAIRED)})"
            raise DataError(Fault(f"{spec.name}.builtin", expected, spec.builtin, step))
        return DatasetParts(parts)
    source = next(kind for kind in _ROWS if getattr(spec, kind) is not None)
    faults: list[Fault] = []
    parts = {}
    for name, rows in _ROWS[source](spec).items():
        with collecting(faults):
            parts[name] = _images(rows, f"{spec.name} ({name})")
    if faults:
        raise DataError(faults)
    return DatasetParts(parts)


def _images(rows: Rows, where: str) -> ImagePart:
    each = _texts(rows, where)
    first: dict[object, int] = {}
    captions: dict[int, list[str]] = {}
    for row, own in enumerate(each):
        at = first.setdefault(rows.content(row), row)
        captions.setdefault(at, []).extend(own)
    kept = [*captions]
    if len(kept) > 1 and len({text for own in captions.values() for text in own}) == 1:
        got = f"{brief(captions[kept[0]][0])} for all {len(kept):,}"
        step = "Name the column that holds the captions"
        raise DataError(Fault(where, "captions that tell images apart", got, step))
    merged = hashlib.sha256(np.array(kept, dtype="<i8").tobytes()).hexdigest()
    return ImagePart(
        labels=np.zeros(len(kept), dtype=np.int64),
        names=[rows.names[row] for row in kept],
        class_names=(PAIRS,),
        load=lambda position: rows.load(kept[position]),
        identity=identity_of("pairs", rows.identity, merged),
        captions=[tuple(dict.fromkeys(captions[row])) for row in kept],
    )


def _texts(rows: Rows, where: str) -> list[list[str]]:
    """The captions of each row, or every row that has none or a wrong one, by kind."""
    each: list[list[str]] = []
    wrong: dict[str, list[str]] = {}
    if not len(rows):
        raise DataError(Fault(where, "at least two images", "none", "Check it"))
    for row, cells in enumerate(zip(*rows.cells, strict=True)):
        found = [*_flat(cells)]
        kinds = {kind for text in found if (kind := _wrong(text))} if found else {"no caption"}
        for kind in kinds:
            wrong.setdefault(kind, []).append(_place(rows, row))
        each.append([text.strip() for text in found if isinstance(text, str)])
    faults = [
        Fault(
            where,
            f"captions, each a text of 1 to {LONGEST:,} characters",
            f"{kind} at {'; '.join(places[:SHOWN])} ({len(places):,} in all)",
            "Correct or remove these",
        )
        for kind, places in wrong.items()
    ]
    if faults:
        raise DataError(faults)
    return each


def _flat(cells: Sequence[Any]) -> Iterator[Any]:
    """Of one row; a list in a cell is several captions, an empty one none."""
    for cell in cells:
        if isinstance(cell, list):
            yield from cell
        elif cell is not None:
            yield cell


def _wrong(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"no text but {type(text).__name__}"
    if not text.strip():
        return "an empty caption"
    return "a longer one" if len(text) > LONGEST else None


def _place(rows: Rows, row: int) -> str:
    name = rows.names[row]
    return name if f"row {row}" in name else f"row {row}, {name}"
