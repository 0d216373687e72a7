"""Images ready for a backbone, and which of them may be unreadable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.fingerprints import Prints
from clipdrift.data.parts import SEVERAL, ImagePart
from clipdrift.errors import DataError, Fault

_SHOWN = 3
"""Reasons why images cannot be read that are told, and images named for each."""


@dataclass(frozen=True)
class PreparedPart:
    """Images ready for a backbone.

    pixels: uint8 [N, S, S, 3], memory-mapped, read-only. labels: int64 [N] in 0..C-1.
    class_names: C. sha256: hex, over pixels, labels, class names and captions; the same wherever
    the data lies. bad_images: "name: reason" of those left out. names: N, for messages. prints:
    [N, 3], see `fingerprints`. captions, several: as of an `ImagePart`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    sha256: str
    bad_images: tuple[str, ...]
    names: Sequence[str]
    prints: Prints
    captions: Sequence[tuple[str, ...]] | None = None
    several: NDArray[np.bool_] | None = None

    @property
    def strata(self) -> tuple[str, ...]:
        """As of an `ImagePart`."""
        return (SEVERAL,) if self.several is not None else self.class_names

    def __len__(self) -> int:
        return len(self.labels)


def told_bad(part: ImagePart, bad: dict[int, str]) -> tuple[str, ...]:
    """Name and reason of each image that was left out, which are given by position."""
    return tuple(f"{part.names[position]}: {reason}" for position, reason in sorted(bad.items()))


def require_few_bad(part: ImagePart, bad: dict[int, str], max_bad: int, where: str) -> None:
    """Refuse a part of which more images cannot be read than may be, or all.

    Raises:
        DataError: naming the first of each reason.
    """
    if len(bad) <= max_bad and len(bad) < len(part):
        return
    reasons: dict[str, list[str]] = {}
    for position, reason in sorted(bad.items()):
        reasons.setdefault(reason, []).append(part.names[position])
    told = "; ".join(f"{_few(names)}: {reason}" for reason, names in [*reasons.items()][:_SHOWN])
    step = f"Repair or remove them, or set max_bad_images: {len(bad)} to leave them out"
    if len(bad) == len(part):
        step = "Mend that, or check the path and the image column; not one image can be read"
    raise DataError(
        Fault(
            where,
            f"at most {max_bad} unreadable images",
            f"{len(bad)} of {len(part)}: {told}{'; ...' if len(reasons) > _SHOWN else ''}",
            step,
        )
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
