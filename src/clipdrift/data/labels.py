"""From labels as written (numbers, or class names) to 0..C-1 and one list of class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.naming import GivenNames, composed, places, renamed, whole_number
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
    parts: dict[str, WrittenLabels], class_names: GivenNames | None, *, where: str
) -> Numbered:
    """Labels int64 per part, and the class names in label order.

    Numbers index the given `class_names`, else the names in the file. Names are sorted and numbered
    in that order; `class_names` may list the same names in another order, rename each by a mapping,
    or name classes that the data only numbers. `naming` says when two names are the same; what
    could only be matched by a guess is refused.

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
    parts: dict[str, WrittenLabels], given: GivenNames | None, where: str
) -> Numbered:
    in_file = {part: written.schema_names for part, written in parts.items()}
    known = [names for names in in_file.values() if names is not None]
    if any(names != known[0] for names in known):
        raise DataError(
            Fault(where, "the same class names in train and test", str(in_file), "Make them agree")
        )
    if isinstance(given, Mapping) and not known:
        return _from_names(_as_written(parts), _in_order(given), where)
    names = _names_for_numbers(given, known[0] if known else None, where)
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
    given: GivenNames | None, in_file: tuple[str, ...] | None, where: str
) -> tuple[str, ...]:
    if in_file is not None:
        return renamed(given or in_file, in_file, where)
    if given is None:
        raise DataError(
            Fault(
                where,
                "class names for integer labels",
                "none, neither in the data nor in class_names",
                "Give class_names: [...] in label order",
            )
        )
    return tuple(map(composed, given))


def _as_written(parts: Mapping[str, WrittenLabels]) -> dict[str, WrittenLabels]:
    """Numbers as texts, which a mapping names one by one, from whatever they are counted."""
    return {part: WrittenLabels([str(one) for one in own.values]) for part, own in parts.items()}


def _in_order(given: Mapping[str, str]) -> dict[str, str]:
    """By the numbers that are named, where all are: else the mapping is refused as it stands."""
    order = {name: whole_number(name) for name in given}
    if None in order.values():
        return dict(given)
    return dict(sorted(given.items(), key=lambda item: order[item[0]] or 0))


def _from_names(parts: dict[str, WrittenLabels], given: GivenNames | None, where: str) -> Numbered:
    written = {str(label) for part in parts.values() for label in part.values}
    found = sorted({composed(name) for name in written})
    if len(found) < len(written):
        raise DataError(_look_alike(written, where))
    if given is None:
        _require_words(found, where)
        label, names = {name: number for number, name in enumerate(found)}, tuple(found)
    else:
        label = places(given, found, where)
        names = tuple(map(composed, given.values() if isinstance(given, Mapping) else given))
    labels = {
        part: np.array([label[composed(str(one))] for one in those.values], dtype=np.int64)
        for part, those in parts.items()
    }
    return labels, names


def _require_words(found: Sequence[str], where: str) -> None:
    numbers = [whole_number(name) for name in found]
    if None not in numbers:
        raise DataError(
            Fault(
                where,
                "class names that can be written into a prompt",
                f"only numbers: {', '.join(sorted(found, key=lambda n: whole_number(n) or 0)[:5])}",
                "Give class_names: [...] in the order of these numbers",
            )
        )


def _look_alike(written: set[str], where: str) -> Fault:
    """Written out by code point, because they cannot be told apart by eye."""
    counts = Counter(map(composed, written))
    alike = sorted(name for name in written if counts[composed(name)] > 1)
    return Fault(
        where,
        "class names that differ when they are read",
        f"{', '.join(map(ascii, alike[:6]))}, one name in two spellings of Unicode",
        "Give both classes one name, or merge their images",
    )


def _require_same_classes(
    labels: dict[str, NDArray[np.int64]], names: Sequence[str], where: str
) -> None:
    present = {part: set(values.tolist()) for part, values in labels.items()}
    faults = [
        Fault(
            where,
            f"the same classes in train and {other}",
            f"{', '.join(repr(names[label]) for label in sorted(extra)[:10])} only in {part}",
            "Add images to the other part, or remove these",
        )
        for other in present
        if other != "train" and "train" in present
        for part, rest in (("train", other), (other, "train"))
        if (extra := present[part] - present[rest])
    ]
    if faults:
        raise DataError(faults)
