"""A view on prepared images: which of them, in which order, with which labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.captions import Captions
from clipdrift.data.fingerprints import Prints


@dataclass(frozen=True)
class Images:
    """Some images of one prepared part; pixels stay memory-mapped until they are taken.

    pixels: uint8 [M, S, S, 3], the whole part. index: [N] positions in it. labels: [N]. names: M,
    for messages, and prints: [M, 3], see `fingerprints`; none of images that were never prepared.
    texts: M, the captions of each image, where images have captions. several: bool [M, C], where
    they have any number of labels.
    """

    pixels: NDArray[np.uint8]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: Sequence[str] = ()
    prints: Prints | None = None
    texts: Sequence[tuple[str, ...]] | None = None
    several: NDArray[np.bool_] | None = None

    @property
    def truth(self) -> NDArray[np.bool_] | None:
        """bool [N, C] of the images in view; None where each has one label, or captions."""
        return None if self.several is None else self.several[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, positions: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """uint8 [B, S, S, 3], a copy that may be written to."""
        return np.ascontiguousarray(self.pixels[self.index[positions]])

    def select(self, positions: NDArray[np.int64]) -> Images:
        """The images at some positions of this view."""
        return replace(self, index=self.index[positions], labels=self.labels[positions])

    @cached_property
    def captions(self) -> Captions | None:
        """Of the images in view; None where images have classes."""
        if self.texts is None:
            return None
        return Captions.of([self.texts[place] for place in self.index.tolist()])

    def sha256(self) -> str:
        """SHA-256 (hex) over the pixels, labels and captions in view."""
        digest = hashlib.sha256(self.labels.tobytes())
        if self.captions is not None:
            told = [self.captions.texts, self.captions.owner.tolist(), self.captions.text.tolist()]
            digest.update(json.dumps(told).encode())
        if self.truth is not None:
            digest.update(self.truth.tobytes())
        for start in range(0, len(self), 256):
            digest.update(self.take(slice(start, start + 256)).tobytes())
        return digest.hexdigest()
