"""Find a dataset: one way in for the four kinds of source a study may name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.builtin import open_builtin
from clipdrift.data.folder import open_folder
from clipdrift.data.hub import hub_rows
from clipdrift.data.naming import composed
from clipdrift.data.pairs import open_pairs
from clipdrift.data.parts import DatasetParts, ImagePart
from clipdrift.data.rows import labelled_parts
from clipdrift.data.several import open_several
from clipdrift.data.tables import table_rows
from clipdrift.errors import DataError, Fault
from clipdrift.spec.datasets import DatasetSpec, TargetSpec, TransferSpec

SHOWN = 40
_CARVE_SEED = 20_260_416
"""Draws the test part of data that has none."""

_OPENERS = {
    "builtin": open_builtin,
    "folder": open_folder,
    "files": lambda spec: labelled_parts(table_rows(spec), spec),
    "hub": lambda spec: labelled_parts(hub_rows(spec), spec),
}


def open_dataset(spec: DatasetSpec, *, carve: bool = True, validation: bool = True) -> DatasetParts:
    """The parts of a dataset; labels are read, images are not decoded yet.

    A target without a test part gets one, unless `carve` is false: see `carved_test`. Its own part
    for validation, "val", is left out unless `validation`. A transfer dataset is only scored, so
    one part, "test", is returned: its test part, or all of its images where it has none.

    Raises:
        DataError: the source is not there, not readable, or breaks a rule of its kind; a target
            without a training part; a class too small to carve a test part from.
    """
    source = next(kind for kind in _OPENERS if getattr(spec, kind) is not None)
    opener = open_pairs if spec.paired else open_several if spec.several else _OPENERS[source]
    opened = opener(spec)
    parts = _without(opened.parts, spec)
    if isinstance(spec, TransferSpec):
        parts = {"test": parts.get("test") or parts["train"]}
    elif "test" not in parts:
        parts = _with_test_part(parts["train"], spec) if carve else parts
    elif isinstance(spec, TargetSpec) and "train" not in parts:
        raise DataError(
            Fault(
                spec.name,
                "a target with a training part",
                "only a test part",
                "Name training images, or list the dataset under transfer",
            )
        )
    notes = opened.notes
    if "val" in parts:
        told = "is the validation set" if validation else "is not read: splits carve another"
        notes += (f"{spec.name}: its validation part {told}",)
        parts = {name: part for name, part in parts.items() if validation or name != "val"}
    return DatasetParts(parts, notes)


def _without(parts: dict[str, ImagePart], spec: DatasetSpec) -> dict[str, ImagePart]:
    """The parts without the classes to be skipped; of a folder they were never read."""
    if not spec.skip_classes or spec.folder is not None:
        return parts
    names = next(iter(parts.values())).class_names
    where, known = f"{spec.name}.skip_classes", ", ".join(names[:SHOWN])
    faults = [
        Fault(where, f"a class of the data ({known})", repr(name), "Correct or remove it")
        for name in spec.skip_classes
        if composed(name) not in names
    ]
    skipped = {composed(name) for name in spec.skip_classes}
    kept = [label for label, name in enumerate(names) if name not in skipped]
    if len(kept) < 2 and not faults:
        faults = [Fault(where, "two or more classes left", f"{len(kept)}", "Skip fewer")]
    if faults:
        raise DataError(faults)
    return {name: _only(part, kept) for name, part in parts.items()}


def _only(part: ImagePart, kept: list[int]) -> ImagePart:
    """The images of some classes, numbered anew in the order of their labels."""
    images = part.subset(np.flatnonzero(np.isin(part.labels, kept)))
    names = tuple(part.class_names[label] for label in kept)
    return replace(images, labels=np.searchsorted(kept, images.labels), class_names=names)


def _with_test_part(part: ImagePart, spec: DatasetSpec) -> dict[str, ImagePart]:
    test = carved_test(part.labels, part.strata, spec)
    train = np.setdiff1d(np.arange(len(part), dtype=np.int64), test)
    return {"train": part.subset(train), "test": part.subset(test)}


def carved_test(
    labels: NDArray[np.int64], class_names: Sequence[str], spec: DatasetSpec
) -> NDArray[np.int64]:
    """Sorted positions of a test part: the rounded `test_fraction` of each class.

    It takes one image at least and leaves one at least. The draw depends on nothing but the labels:
    one split per dataset, whatever the study's seeds.

    Raises:
        DataError: each class of fewer than two images.
    """
    chosen: list[NDArray[np.int64]] = []
    faults: list[Fault] = []
    for label, name in enumerate(class_names):
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            faults.append(
                Fault(
                    f"{spec.name}, {name}",
                    "at least 2 images to carve a test part from",
                    f"{len(positions)}",
                    "Add images, give a test part, or remove the class",
                )
            )
            continue
        count = int(np.clip(round(spec.test_fraction * len(positions)), 1, len(positions) - 1))
        rng = np.random.default_rng([_CARVE_SEED, label + 1])
        chosen.append(rng.permutation(positions)[:count])
    if faults:
        raise DataError(faults)
    return np.sort(np.concatenate(chosen))
