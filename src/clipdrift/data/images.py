"""A view on prepared images: which of them, in which order, with which labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Images:
    """Some images of one prepared part; pixels stay memory-mapped until they are taken.

    pixels: uint8 [M, S, S, 3], the whole part. index: [N] positions in it. labels: [N].
    """

    pixels: NDArray[np.uint8]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, positions: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """uint8 [B, S, S, 3], a copy that may be written to."""
        return np.ascontiguousarray(self.pixels[self.index[positions]])

    def select(self, positions: NDArray[np.int64]) -> Images:
        """The images at some positions of this view."""
        return Images(self.pixels, self.index[positions], self.labels[positions])

    def sha256(self) -> str:
        """SHA-256 (hex) over the pixels and labels in view."""
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self), 256):
            digest.update(self.take(slice(start, start + 256)).tobytes())
        return digest.hexdigest()
