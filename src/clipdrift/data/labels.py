"""From labels as written (numbers, or class names) to 0..C-1 and one list of class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdrift.errors import DataError, Fault

Numbered = tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]


@dataclass(frozen=True)
class WrittenLabels:
    """Labels of one part: all int or all str; `schema_names` where the file itself has them."""

    values: Sequence[int] | Sequence[str]
    schema_names: tuple[str, ...] | None = None

    @property
    def are_numbers(self) -> bool:
        return len(self.values) > 0 and not isinstance(self.values[0], str)


def number_labels(
    parts: dict[str, WrittenLabels], class_names: Sequence[str] | None, *, where: str
) -> Numbered:
    """Labels int64 per part, and the class names in label order.

    Numbers index the given `class_names`, else the names in the file. Names are sorted (as numbers
    where all are decimal) and numbered in that order; `class_names` may then list the same names
    in another order, or rename the sorted ones. Names are compared without case, spaces and
    punctuation, so that `annual_crop` and `Annual Crop` are the same.

    Raises:
        DataError: no image, no names, one class, a label out of range, classes that differ between
            the parts, or given names that belong to other labels.
    """
    empty = [part for part, written in parts.items() if not len(written.values)]
    if empty:
        raise DataError(
            [Fault(f"{where} ({part})", "at least one image", "none", "Check it") for part in empty]
        )
    kinds = {written.are_numbers for written in parts.values()}
    if len(kinds) > 1:
        got = ", ".join(
            f"{'numbers' if written.are_numbers else 'names'} in {part}"
            for part, written in parts.items()
        )
        raise DataError(
            Fault(where, "labels of one kind in train and test", got, "Write both the same way")
        )
    number = _from_numbers if kinds.pop() else _from_names
    labels, names = number(parts, class_names, where)
    if len(names) < 2:
        raise DataError(Fault(where, "two or more classes", str(list(names)), "Add a class"))
    _require_same_classes(labels, names, where)
    return labels, names


def _from_numbers(
    parts: dict[str, WrittenLabels], given: Sequence[str] | None, where: str
) -> Numbered:
    in_file = {part: written.schema_names for part, written in parts.items()}
    known = [names for names in in_file.values() if names is not None]
    if any(names != known[0] for names in known):
        raise DataError(
            Fault(where, "the same class names in train and test", str(in_file), "Make them agree")
        )
    names = _names_for_numbers(tuple(given) if given else None, known[0] if known else None, where)
    faults: list[Fault] = []
    labels: dict[str, NDArray[np.int64]] = {}
    for part, written in parts.items():
        outside = [int(label) for label in written.values if not 0 <= int(label) < len(names)]
        if outside:
            found = ", ".join(map(str, sorted(set(outside))[:5]))
            faults.append(
                Fault(
                    f"{where} ({part})",
                    f"labels in 0..{len(names) - 1} for {len(names)} class names",
                    f"{found} in {len(outside)} rows",
                    "Correct the labels, counted from 0, or give a name for each in class_names",
                )
            )
        else:
            labels[part] = np.array(written.values, dtype=np.int64)
    if faults:
        raise DataError(faults)
    return labels, names


def _names_for_numbers(
    given: tuple[str, ...] | None, in_file: tuple[str, ...] | None, where: str
) -> tuple[str, ...]:
    if given is None and in_file is None:
        raise DataError(
            Fault(
                where,
                "class names for integer labels",
                "none, neither in the data nor in class_names",
                "Give class_names: [...] in label order",
            )
        )
    if given is None or in_file is None:
        return given or in_file or ()
    _require_right_places(given, in_file, where)
    return given


def _from_names(
    parts: dict[str, WrittenLabels], given: Sequence[str] | None, where: str
) -> Numbered:
    found = {str(label) for written in parts.values() for label in written.values}
    decimal = all(label.isdecimal() for label in found)
    if decimal and given is None:
        raise DataError(
            Fault(
                where,
                "class names that can be written into a prompt",
                f"only numbers: {', '.join(sorted(found, key=int)[:5])}",
                "Give class_names: [...] in the order of these numbers",
            )
        )
    written = sorted(found, key=int) if decimal else sorted(found)
    names = tuple(given) if given else tuple(written)
    if given and sorted(map(_plain, names)) == sorted(map(_plain, written)):
        place = {_plain(name): label for label, name in enumerate(names)}
        index = {label: place[_plain(label)] for label in written}
    else:
        _require_right_places(names, tuple(written), where)
        index = {label: number for number, label in enumerate(written)}
    labels = {
        part: np.array([index[str(label)] for label in those.values], dtype=np.int64)
        for part, those in parts.items()
    }
    return labels, names


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def _require_right_places(given: Sequence[str], found: Sequence[str], where: str) -> None:
    """Given names may rename the found ones in place, but not carry one to another's label."""
    if len(given) != len(found):
        raise DataError(
            Fault(
                f"{where}.class_names",
                f"{len(found)} names, one per class",
                f"{len(given)}",
                f"The data has, in label order: {', '.join(found[:40])}",
            )
        )
    place = {_plain(name): label for label, name in enumerate(found)}
    swapped = [
        Fault(
            f"{where}.class_names",
            f"names in label order, where {found[label]!r} is label {label}",
            f"{name!r}, the name of label {place[_plain(name)]}",
            f"The data has, in label order: {', '.join(found[:40])}",
        )
        for label, name in enumerate(given)
        if place.get(_plain(name), label) != label
    ]
    if swapped:
        raise DataError(swapped)


def _require_same_classes(
    labels: dict[str, NDArray[np.int64]], names: Sequence[str], where: str
) -> None:
    if len(labels) < 2:
        return
    present = {part: set(values.tolist()) for part, values in labels.items()}
    faults = [
        Fault(
            where,
            "the same classes in train and test",
            f"{', '.join(repr(names[label]) for label in sorted(extra)[:10])} only in {part}",
            "Add images to the other part, or remove these",
        )
        for part, other in (("train", "test"), ("test", "train"))
        if (extra := present[part] - present[other])
    ]
    if faults:
        raise DataError(faults)
