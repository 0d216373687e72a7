"""A dataset that was found but is not decoded: labels, names, and a way to load each image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

Loaded: TypeAlias = Image | NDArray[np.uint8]
"""An opened Pillow image of any mode, or uint8 [H, W, 3], RGB."""


PAIRS = "images with captions"
"""The one class that images with captions are of, to splits and to messages."""


SEVERAL = "images with several labels"


@dataclass(frozen=True)
class ImagePart:
    """The train or the test part of a dataset.

    labels: int64 [N] in 0..C-1. names: N strings for messages. class_names: C distinct strings.
    load: position -> image; raises whatever Pillow raises on a bad one; safe in several threads.
    identity: hash of where the images come from; changes when a file is edited or replaced.
    captions: of each image, at least one, where images have captions and are all of one class.
    several: bool [N, C], where images have any number of labels; all of `labels` are 0 then.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    class_names: tuple[str, ...]
    load: Callable[[int], Loaded]
    identity: str
    captions: Sequence[tuple[str, ...]] | None = None
    several: NDArray[np.bool_] | None = None

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of what `labels` divides images into."""
        return (SEVERAL,) if self.several is not None else self.class_names

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: NDArray[np.int64]) -> ImagePart:
        """The images at some positions, in that order."""
        names, captions = self.names, self.captions
        return ImagePart(
            labels=self.labels[positions],
            names=[names[position] for position in positions],
            class_names=self.class_names,
            load=lambda position: self.load(int(positions[position])),
            identity=identity_of(self.identity, hashlib.sha256(positions.tobytes()).hexdigest()),
            captions=None if captions is None else [captions[place] for place in positions],
            several=None if self.several is None else self.several[positions],
        )


@dataclass(frozen=True)
class DatasetParts:
    """Parts under "train", "val" and "test", and what a reader should know about files left out."""

    parts: dict[str, ImagePart]
    notes: tuple[str, ...] = ()


def identity_of(*pieces: object) -> str:
    """SHA-256 (hex) of a description of a source; pieces are anything JSON can write."""
    return hashlib.sha256(json.dumps(pieces, ensure_ascii=True).encode()).hexdigest()


def file_stamp(path: Path) -> tuple[str, int, int]:
    """Absolute path, bytes, and time of last change in ns of a file; -1, -1 where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a NUL in a path is a ValueError
        return str(path.absolute()), -1, -1
    return str(path.absolute()), status.st_size, status.st_mtime_ns
