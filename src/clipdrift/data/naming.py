"""Which class each label as written is: by name where names agree, by number where all are numbers.

Names are compared in Unicode's composed form (NFC): a Mac writes `é` of a file name as two
characters and a keyboard as one. They agree exactly, or else without regard to case and blanks, or
else to punctuation too, each only where that leaves every name unique: `a` and `A`, `C` and `C++`,
`v1.0` and `v10` stay what they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import yaml

from clipdrift.errors import DataError, Fault

GivenNames = Sequence[str] | Mapping[str, str]
"""`class_names` of a study: in label order, or as written in the data -> as CLIP should read it."""

LISTED = 40
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}(\.0*)?")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,40})(\.0*)?")


def composed(name: str) -> str:
    """A name in Unicode's composed form, in which equal looking names are equal."""
    return unicodedata.normalize("NFC", name)


def whole_number(text: str) -> int | None:
    """The whole number that a text writes, as `7` or `7.0`; None for any other text.

    >>> whole_number("-7.0"), whole_number("7.5"), whole_number("9" * 10_000)
    (-7, None, None)
    """
    return int(text.split(".")[0]) if _WHOLE.fullmatch(text) else None


def numbered(names: Sequence[str]) -> list[str] | None:
    """Names that differ by a number at their end alone, in its order; None for others.

    >>> numbered(["class_10", "class_2"]), numbered(["sea", "river"])
    (['class_2', 'class_10'], None)
    """
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbers = {int(one[2]): one[0] for one in found if one}
    stems = {one[1] for one in found if one}
    if None in found or len(stems) > 1 or len(numbers) < len(names):
        return None
    return [numbers[number] for number in sorted(numbers)]


def places(given: GivenNames, found: Sequence[str], where: str) -> dict[str, int]:
    """Label of each name found in the data.

    Args:
        given: `class_names`; a list names the same classes as the data in any order, or names
            classes that the data only numbers, in their order.
        found: distinct names as written in the data, in composed form.

    Raises:
        DataError: given names that are not those of the data, so that their order were a guess.
    """
    keys = [composed(name) for name in given]
    for fold in (str, _casual, _plain):
        place = _unique(fold, keys)
        mine = _unique(fold, found)
        if place is not None and mine is not None and place.keys() == mine.keys():
            return {name: place[fold(name)] for name in found}
    if isinstance(given, Mapping):
        raise DataError(_other_keys(keys, found, where))
    _require_count(keys, found, where)
    ordered = numbered(found)
    require_right_places(keys, ordered or sorted(found), where)
    if ordered is None:
        raise DataError(_guess(keys, sorted(found), where))
    return {name: label for label, name in enumerate(ordered)}


def renamed(given: GivenNames, known: Sequence[str], where: str) -> tuple[str, ...]:
    """Names in label order for data whose labels are numbers with known names.

    A list renames them in their order; it may not carry a known name to another label.
    """
    if isinstance(given, Mapping):
        label = places(given, list(map(composed, known)), where)
        values = list(given.values())
        return tuple(composed(values[label[composed(name)]]) for name in known)
    names = [composed(name) for name in given]
    _require_count(names, known, where)
    require_right_places(names, known, where)
    return tuple(names)


def require_right_places(given: Sequence[str], found: Sequence[str], where: str) -> None:
    """Given names may rename the found ones in place, but not carry one to another's label."""
    found = [composed(name) for name in found]
    fold = next((fold for fold in (_plain, _casual) if _unique(fold, found) is not None), str)
    place = _unique(fold, found) or {}
    swapped = [
        Fault(
            f"{where}.class_names",
            f"names in label order, where {found[label]!r} is label {label}",
            f"{name!r}, the name of label {place[fold(name)]}",
            f"The data has, in label order: {', '.join(found[:LISTED])}",
        )
        for label, name in enumerate(given)
        if place.get(fold(name), label) != label
    ]
    if swapped:
        raise DataError(swapped)


def _casual(name: str) -> str:
    return composed(" ".join(name.casefold().replace("_", " ").split()))


def _plain(name: str) -> str:
    return "".join(letter for letter in composed(name.casefold()) if letter.isalnum()) or name


def _unique(fold: Callable[[str], str], names: Sequence[str]) -> dict[str, int] | None:
    """Folded name -> position; None where two names become one."""
    folded = {fold(name): position for position, name in enumerate(names)}
    return folded if len(folded) == len(names) else None


def _require_count(given: Sequence[str], found: Sequence[str], where: str) -> None:
    if len(given) != len(found):
        raise DataError(
            Fault(
                f"{where}.class_names",
                f"{len(found)} names, one per class",
                f"{len(given)}",
                f"The data has, in label order: {', '.join(list(found)[:LISTED])}",
            )
        )


def _guess(given: Sequence[str], found: Sequence[str], where: str) -> Fault:
    pairs = dict(zip(found[:LISTED], given, strict=False))
    text = yaml.safe_dump(pairs, default_flow_style=True, allow_unicode=True, width=1e9)
    more = ", and so on" if len(found) > LISTED else ""
    return Fault(
        f"{where}.class_names",
        f"the names that the data has ({', '.join(found[:LISTED])}), in any order",
        f"{', '.join(given[:LISTED])}, which could only be matched by their order",
        f"Say which is which, for example class_names: {text.strip()}{more}",
    )


def _other_keys(given: Sequence[str], found: Sequence[str], where: str) -> Fault:
    missing = [name for name in found if name not in given]
    unknown = [name for name in given if name not in found]
    got = [
        f"{len(names)} {word} ({', '.join(map(repr, names[:5]))})"
        for word, names in (("missing", missing), ("unknown", unknown))
        if names
    ]
    return Fault(
        f"{where}.class_names",
        f"each of the {len(found)} names that the data has, once",
        " and ".join(got) or "names that differ by case or punctuation only",
        f"The data has: {', '.join(map(repr, sorted(found)[:LISTED]))}",
    )
