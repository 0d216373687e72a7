"""Sets drawn one after another by one numpy generator, class after class in label order.

The code behind the published studies draws in this way, and so the same images come out. What a
set gets depends on all sets before it, and the images of a class on how many the classes before it
have: for a study of one's own `splits` draws each class by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clipdrift.spec.carving import ProbeSpec

SETS = ("val", "probe", "train")

Positions = NDArray[np.int64]


class InTurn:
    """Positions among some labels, none of them given out twice.

    labels: int64 [N] in 0..n_classes-1. seed: of a `numpy.random.RandomState`, whose stream numpy
    promises to keep.
    """

    def __init__(self, labels: NDArray[np.int64], n_classes: int, seed: int) -> None:
        self._labels = labels
        self._classes = range(n_classes)
        self._unused = np.ones(len(labels), dtype=bool)
        self._rng = np.random.RandomState(seed)

    def of_each_class(self, counts: NDArray[np.int64]) -> Positions:
        """`counts[c]` images of each class c, or all that are left of it; sorted."""
        drawn = []
        for label in self._classes:
            left = np.flatnonzero(self._unused & (self._labels == label))
            drawn.append(self._rng.permutation(left)[: counts[label]])
        return self._give(np.concatenate(drawn))

    def balanced(self, n: int) -> Positions:
        """`n` images: equally many of each class, what is missing of all that are left; sorted."""
        chosen = self.of_each_class(np.full(len(self._classes), n // len(self._classes)))
        if len(chosen) == n:
            return chosen
        left = np.flatnonzero(self._unused)
        more = self._give(self._rng.choice(left, size=n - len(chosen), replace=False))
        return np.union1d(chosen, more)

    def _give(self, chosen: Positions) -> Positions:
        self._unused[chosen] = False
        return np.sort(chosen)


def draw_in_turn(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    counts: Mapping[str, NDArray[np.int64]],
    seed: int,
    probe: ProbeSpec,
) -> dict[str, Positions]:
    """Validation, probe and training images of a target, in this order.

    Args:
        counts: of each of `SETS`, images of each class [C]; those of training are the most.
        seed: of the training part; a probe from the test part has its own.
    """
    training = InTurn(train_labels, len(counts["val"]), seed)
    probed = training
    if probe.source == "test":
        probed = InTurn(test_labels, len(counts["val"]), probe.seed)
    val = training.of_each_class(counts["val"])
    if probe.n_images is None:
        chosen = probed.of_each_class(counts["probe"])
    else:
        chosen = probed.balanced(probe.n_images)
    return {"val": val, "probe": chosen, "train": training.of_each_class(counts["train"])}
