"""What was measured beyond the fields of a record: weight interpolation, corrupted test parts.

Records keep both under `result.extra`: `interpolation.<alpha>.<metric>`, alpha = 0 the untouched
weights and 1 the adapted ones, `interpolation_with_head.`... where the head lies between too,
`interpolation_factors.`... where LoRA's factors do each by itself; and
`corruption.<name>.<severity>.accuracy`, without a severity for damaged copies that came as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

PATHS = {"": "weights", "_with_head": "weights and head", "_factors": "factors"}
"""What follows `interpolation` in a name -> what lies between, for people."""

_INTERPOLATION = re.compile(rf"extra\.interpolation({'|'.join(PATHS)})\.(\d+(?:\.\d+)?)\.([a-z].*)")
_CORRUPTION = re.compile(r"extra\.corruption\.(.+?)(?:\.(\d+))?\.accuracy")


class Interpolated(NamedTuple):
    """A metric of the run frame that was read at weights between untouched and adapted."""

    name: str
    alpha: float
    metric: str
    path: str
    """One of `PATHS`."""


class Corrupted(NamedTuple):
    """Accuracy on a corrupted test part."""

    name: str
    corruption: str
    severity: int | None

    @property
    def label(self) -> str:
        severity = "" if self.severity is None else f" {self.severity}"
        return self.corruption.replace("_", " ") + severity


def interpolated(name: str) -> Interpolated | None:
    """Read the name of a metric.

    >>> interpolated("extra.interpolation_with_head.0.25.transfer.cifar100.accuracy")[1:]
    (0.25, 'transfer.cifar100.accuracy', '_with_head')
    """
    match = _INTERPOLATION.fullmatch(name)
    return None if match is None else Interpolated(name, float(match[2]), match[3], match[1])


def corrupted(name: str) -> Corrupted | None:
    """Read the name of a metric.

    >>> corrupted("extra.corruption.motion_blur.3.accuracy").label
    'motion blur 3'
    """
    match = _CORRUPTION.fullmatch(name)
    return None if match is None else Corrupted(name, match[1], int(match[2]) if match[2] else None)


def interpolations(names: Iterable[str], path: str = "") -> list[Interpolated]:
    """All on one of `PATHS`, by alpha."""
    found = (interpolated(name) for name in names)
    there = (item for item in found if item is not None and item.path == path)
    return sorted(there, key=lambda item: (item.alpha, item.metric))


def corruptions(names: Iterable[str]) -> list[Corrupted]:
    """All of them, by name and severity."""
    found = (corrupted(name) for name in names)
    return sorted(
        (item for item in found if item), key=lambda item: (item.corruption, item.severity or 0)
    )
