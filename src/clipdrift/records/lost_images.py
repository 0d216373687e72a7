"""Which images stand for those that were lost: one rule, for pictures that are kept and for lists.

Images that the untouched model was right on and the adapted one is wrong on, by how far their
margin fell, the largest fall first, and no two of one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

TABLE = "transfer_images.parquet"
"""Beside a record: one row per image of the sets that were read in full."""
PICTURES = "lost_images"
"""The folder beside it with the pictures of those that the rule picks."""
MOST = 4
OPEN = ("CC0", "CC BY 4.0", "CC BY-SA 4.0", "MIT", "Apache-2.0")
"""Licences that let anyone pass images on."""


def picked(label: ArrayLike, predicted: ArrayLike, before: ArrayLike, fall: ArrayLike) -> list[int]:
    """Positions of at most `MOST` images.

    Args:
        label, predicted, before: class of each image: true, as adapted, as untouched.
        fall: of its margin, before less now.

    >>> picked(["a", "a", "b", "b"], ["b", "b", "a", "b"], list("aabb"), [0.1, 0.2, 0.1, 0.3])
    [1, 2]
    """
    own, now, was = (np.asarray(classes) for classes in (label, predicted, before))
    lost = np.flatnonzero((was == own) & (now != own))
    found: dict[Any, int] = {}
    for at in lost[np.argsort(-np.asarray(fall, dtype=np.float64)[lost], kind="stable")].tolist():
        found.setdefault(own[at], at)
    return [*found.values()][:MOST]


def file_name(transfer: str, image: int) -> str:
    """Of an image's picture; names of sets are safe as file names."""
    return f"{transfer}-{image}.png"


def licence_of(provenance: Mapping[str, Any], transfer: str) -> str | None:
    """The licence of a set as its record states it; None where nothing is stated."""
    stated = provenance.get("licences")
    found = stated.get(transfer) if isinstance(stated, Mapping) else None
    return found if isinstance(found, str) else None
