"""Images that are of any number of classes, from tables and hub datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.hub import hub_rows
from clipdrift.data.naming import composed
from clipdrift.data.parts import DatasetParts, ImagePart, identity_of
from clipdrift.data.rows import Rows
from clipdrift.data.tables import table_rows
from clipdrift.errors import DataError, Fault, brief, did_you_mean
from clipdrift.spec.datasets import DatasetSpec

SHOWN = 5


def open_several(spec: DatasetSpec) -> DatasetParts:
    """The parts of a dataset with `labels_column`; no image is decoded yet.

    Labels are names, or numbers of names that `class_names` or the file has. Without `class_names`
    classes are the names that occur, sorted.

    Raises:
        DataError: what the source raises; labels that are neither, or no class; fewer than two
            classes, and classes that no training image is of.
    """
    parts = hub_rows(spec) if spec.hub is not None else table_rows(spec)
    written = {
        name: [_labels(cell, spec) for cell in rows.cells[0]] for name, rows in parts.items()
    }
    names = _names(spec, parts, written)
    place = {composed(name): i for i, name in enumerate(names)}
    faults: list[Fault] = []
    out = {}
    for part, rows in parts.items():
        where = f"{rows.where}, column {spec.labels_column}"
        truth = np.zeros((len(rows), len(names)), dtype=np.bool_)
        wrong = []
        for row, labels in enumerate(written[part]):
            for label in labels:
                at = label if isinstance(label, int) else place.get(composed(str(label)))
                if at is None or isinstance(label, bool) or not 0 <= at < len(names):
                    wrong.append((row, label))
                else:
                    truth[row, at] = True
        faults += _unknown(where, wrong, names)
        if part == "train":
            faults += _unseen(where, truth, names)
        identity = identity_of("several", rows.identity)
        one = np.zeros(len(rows), dtype=np.int64)
        out[part] = ImagePart(one, rows.names, names, rows.load, identity, several=truth)
    if len(names) < 2:
        faults.append(Fault(spec.name, "two or more classes", brief(list(names)), "Add a class"))
    if faults:
        raise DataError(faults)
    return DatasetParts(out)


def _labels(cell: Any, spec: DatasetSpec) -> list[Any]:
    """Of one image; an empty cell is none."""
    if isinstance(cell, str):
        return [one.strip() for one in cell.split(spec.label_separator) if one.strip()]
    if cell is None:
        return []
    return list(cell) if isinstance(cell, list) else [cell]


def _names(
    spec: DatasetSpec, parts: dict[str, Rows], written: dict[str, list[list[Any]]]
) -> tuple[str, ...]:
    if isinstance(spec.class_names, list):
        return tuple(map(composed, spec.class_names))
    in_file = next((rows.class_names for rows in parts.values() if rows.class_names), None)
    if in_file is not None:
        return in_file
    every = [label for rows in written.values() for labels in rows for label in labels]
    return tuple(sorted({composed(label) for label in every if isinstance(label, str)}))


def _unknown(where: str, wrong: Sequence[tuple[int, Any]], names: Sequence[str]) -> list[Fault]:
    if not wrong:
        return []
    shown = ", ".join(f"{brief(label)} in row {row}" for row, label in wrong[:SHOWN])
    expected = f"names of classes ({', '.join(names[:SHOWN])}, ...), or their numbers from 0"
    step = did_you_mean(str(wrong[0][1]), names, "Correct these rows, or give class_names")
    return [Fault(where, expected, f"{shown} ({len(wrong):,} in all)", step)]


def _unseen(where: str, truth: NDArray[np.bool_], names: Sequence[str]) -> list[Fault]:
    unseen = [names[i] for i in np.flatnonzero(~truth.any(axis=0)).tolist()]
    if not unseen:
        return []
    step = "Add images, or leave these classes out of class_names"
    got = f"none of {', '.join(map(repr, unseen[:SHOWN]))} ({len(unseen):,} such classes)"
    return [Fault(where, "training images of every class", got, step)]
