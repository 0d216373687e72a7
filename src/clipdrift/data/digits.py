"""Embedded handwritten digits (UCI optical recognition, 8x8; Alpaydin & Kaynak 1998), as RGB."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipdrift.errors import DataError, Fault

DIGITS_CLASSES: tuple[str, ...] = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
"""Label -> name."""

SIZE = 28
TEST_PER_CLASS = 60
_SPLIT_SEED = 0


def load_digits_split(
    split: Literal["train", "test"],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One part of a fixed split of the 1,797 digits: 60 test images a class, the rest train.

    Returns:
        Images uint8 [N, 28, 28, 3], three equal channels, black ground; labels int64 [N].
        Both parts keep the order of the file.

    Raises:
        DataError: `split` is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise DataError(Fault("split", "train or test", repr(split), "Name one of the two"))
    raw, labels = _raw()
    test = _test_mask(labels)
    chosen = test if split == "test" else ~test
    pixels = _enlarged(raw[chosen])
    return np.repeat(pixels[..., None], 3, axis=3), labels[chosen]


def _raw() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Grey levels 0..16 [N, 8, 8] and labels [N]."""
    file = files("clipdrift").joinpath("assets", "digits", "digits.csv.gz")
    with file.open("rb") as packed, gzip.open(packed, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


def _enlarged(raw: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Grey levels 0..16 [N, 8, 8] -> 0..255 [N, 28, 28]: bilinear, pixel centres aligned.

    All in whole numbers, the linear weights in fourteenths, so that no machine rounds differently.
    """
    # Centre of target pixel i in source pixels: (i + 1/2) 8/28 - 1/2 = (4 i - 5) / 14, edges held.
    centres = np.clip(4 * np.arange(SIZE) - 5, 0, 7 * 14)
    weights = np.maximum(0, 14 - np.abs(centres[:, None] - 14 * np.arange(8)[None, :]))
    numerator = 255 * (weights @ raw @ weights.T)
    denominator = 16 * 14 * 14
    rounded: NDArray[np.int64] = (2 * numerator + denominator) // (2 * denominator)
    return rounded.astype(np.uint8)


def _test_mask(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for `TEST_PER_CLASS` images of each class, drawn once and for all."""
    mask = np.zeros(len(labels), dtype=np.bool_)
    rng = np.random.default_rng(_SPLIT_SEED)
    for digit in range(len(DIGITS_CLASSES)):
        mask[rng.choice(np.flatnonzero(labels == digit), TEST_PER_CLASS, replace=False)] = True
    return mask
