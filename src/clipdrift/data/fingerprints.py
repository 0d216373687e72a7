"""Which prepared images are one picture: equal pixel by pixel, or one a re-encoded copy of another.

A near copy has a perceptual hash that differs in at most `NEAR_BITS` of 64 bits and, because hashes
of smooth or drawn pictures meet by chance, a thumbnail that correlates by `NEAR_CORRELATION`.
Of 10,000 EuroSAT tiles (50 million pairs), 1,800 drawn digits, 5,000 pictures of Tiny-ImageNet and
505 photographs of pets no two are taken for copies. Copies saved as JPEG of quality 75 are found
for all photographs, and for three of four tiles of EuroSAT, of which many are smooth. Crops,
mirrored pictures and frames of a video are not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = Callable[[int], NDArray[np.uint8]]
Prints = NDArray[np.uint64]
"""[N, 3]: 128 bits of a hash of the pixels, and 64 of a hash of what they look like."""

NEAR_BITS = 4
NEAR_CORRELATION = 0.995
_SIDE, _KEPT = 32, 8
_FLATTEST = 2.0
"""Grey levels, standard deviation of a thumbnail below which there is nothing to recognise."""
_FLAT = np.uint64(0)
"""Perceptual hash of a flat picture: of any other, half of the bits are set."""


def fingerprint(pixels: NDArray[np.uint8]) -> Prints:
    """[3] of one image, uint8 [S, S, 3].

    The third number is the pHash of Zauner (2010): of the discrete cosine transform of a grey
    thumbnail of 32 x 32, which of the 64 lowest frequencies lie above their median.
    """
    exact = hashlib.sha256(pixels.tobytes()).digest()[:16]
    return np.array([*np.frombuffer(exact, "<u8"), _looks(_thumbnail(pixels))], dtype=np.uint64)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)


def _looks(thumbnail: NDArray[np.float32]) -> np.uint64:
    if thumbnail.std() < _FLATTEST:
        return _FLAT
    lowest = (_cosines() @ thumbnail @ _cosines().T).ravel()
    bits = np.packbits(lowest > np.median(lowest))
    return np.uint64(int.from_bytes(bits.tobytes(), "big"))


@cache
def _cosines() -> NDArray[np.float32]:
    """The lowest rows of the orthonormal discrete cosine transform (type II)."""
    frequency, place = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None] + 0.5
    rows = np.cos(np.pi * frequency * place / _SIDE) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    cosines: NDArray[np.float32] = rows.astype(np.float32)
    return cosines


def equal_pictures(prints: Prints) -> NDArray[np.int64]:
    """[N]: for each image the first one that has its pixels."""
    _, first, group = np.unique(prints[:, :2], axis=0, return_index=True, return_inverse=True)
    return first[group.ravel()].astype(np.int64)


def same_pictures(prints: Prints, pixels: Pixels) -> NDArray[np.int64]:
    """[N]: for each image the first one that is the same picture, near copies of copies included.

    Args:
        pixels: position -> uint8 [S, S, 3], asked for the few images whose hashes are close.
    """
    first = equal_pictures(prints)
    distinct = np.flatnonzero(first == np.arange(len(first)))
    pairs = distinct[_close_pairs(prints[distinct, 2])]
    root = np.arange(len(first))
    for a, b in sorted(map(tuple, pairs[_correlate(pairs, pixels)].tolist())):
        a, b = sorted((_root_of(root, a), _root_of(root, b)))
        root[b] = a
    return np.array([_root_of(root, one) for one in first], dtype=np.int64)


def _root_of(root: NDArray[np.int64], one: int) -> int:
    while root[one] != one:
        one = int(root[one])
    return one


def place_of(starts: NDArray[np.int64], place: int) -> tuple[int, int]:
    """Which of several sets an image of all of them is in, and where.

    >>> place_of(np.array([0, 3, 5]), 4)
    (1, 1)
    """
    number = int(np.searchsorted(starts, place, side="right")) - 1
    return number, place - int(starts[number])


def _close_pairs(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[P, 2]: pairs of hashes that differ in few bits.

    Cut into one piece more than bits may differ, two such hashes have one piece in common: only
    hashes that lie side by side when sorted by that piece are compared.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    width = -(-64 // (NEAR_BITS + 1))
    for start in range(0, 64, width):
        piece = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
        order = np.lexsort((hashes, piece))
        order = order[hashes[order] != _FLAT]
        at, step = np.arange(len(order)), 0
        while len(at):
            step += 1
            at = at[: np.searchsorted(at, len(order) - step)]
            at = at[piece[order[at]] == piece[order[at + step]]]
            a, b = order[at], order[at + step]
            close = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
            found.append(np.sort(np.stack([a[close], b[close]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _correlate(pairs: NDArray[np.int64], pixels: Pixels) -> NDArray[np.bool_]:
    """[P]: whether the thumbnails of two images are one up to brightness and contrast."""
    shapes = {one: _shape(pixels(one)) for one in np.unique(pairs).tolist()}
    return np.array(
        [float((shapes[a] * shapes[b]).sum()) >= NEAR_CORRELATION for a, b in pairs.tolist()],
        dtype=np.bool_,
    )


def _shape(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A thumbnail with mean 0 and length 1."""
    centred = _thumbnail(pixels) - _thumbnail(pixels).mean()
    shape: NDArray[np.float32] = centred / np.linalg.norm(centred)
    return shape
