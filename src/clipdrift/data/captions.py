"""Captions of images as retrieval and training take them: distinct texts, and who bears which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Captions:
    """The captions of N images, in the order of the images.

    texts: U distinct ones, in order of first occurrence. owner, text: int64 [M], the image and the
    text of each caption, M >= N.
    """

    texts: list[str]
    owner: NDArray[np.int64]
    text: NDArray[np.int64]

    @classmethod
    def of(cls, each: Sequence[Sequence[str]]) -> Captions:
        """From at least one caption of each image.

        >>> Captions.of([["a cat", "two"], ["two"]]).text.tolist()
        [0, 1, 1]
        """
        number: dict[str, int] = {}
        text = [number.setdefault(one, len(number)) for own in each for one in own]
        owner = np.repeat(np.arange(len(each)), [len(own) for own in each])
        return cls(list(number), owner.astype(np.int64), np.array(text, dtype=np.int64))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        counts = np.bincount(self.owner)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def drawn(self, shares: NDArray[np.float64]) -> NDArray[np.int64]:
        """The text of one caption of each image [N]: that at a share [N], in [0, 1), of its own."""
        starts, counts = self._starts[:-1], np.diff(self._starts)
        return self.text[starts + (shares * counts).astype(np.int64)]

    def rows_of(self, whole: Captions) -> NDArray[np.int64]:
        """[U] where each of these texts stands among those of a larger set."""
        place = {text: row for row, text in enumerate(whole.texts)}
        return np.array([place[text] for text in self.texts], dtype=np.int64)

    def remarks(self, name: str) -> list[str]:
        """What stands under several images, in words: right for each of them."""
        pairs = set(zip(self.owner.tolist(), self.text.tolist(), strict=True))
        counts = Counter(text for _, text in pairs)
        shared = [text for text, n in counts.items() if n > 1]
        if not shared:
            return []
        told = f"{len(shared):,} of {len(self.texts):,} captions stand under several images"
        return [f"{name}: {told} ({self.texts[shared[0]]!r}), and count as right for each"]
