"""Background textures of the embedded world: fields in [0, 1] that mix two colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""[B, S, S]; frequencies are [B, 1, 1] in radians per half image width."""


def pixel_grid(size: int) -> tuple[Field, Field]:
    """Pixel centres x [1, 1, S] and y [1, S, 1] in [-1, 1], x to the right and y down."""
    centres: Field = (np.arange(size, dtype=np.float32) * 2 + 1) / np.float32(size) - np.float32(1)
    return centres[None, None, :], centres[None, :, None]


def turned(x: Field, y: Field, angle: Field) -> tuple[Field, Field]:
    """Coordinates in a frame that is turned by `angle` [B, 1, 1] radians."""
    cos: Field = np.cos(angle)
    sin: Field = np.sin(angle)
    along: Field = cos * x + sin * y
    across: Field = cos * y - sin * x
    return along, across


def unit(field: Field, steepness: float = 1.0) -> Field:
    """A field around 0 squeezed into [0, 1]; a larger steepness gives harder edges."""
    squeezed: Field = np.clip(np.float32(0.5) + np.float32(0.5 * steepness) * field, 0, 1)
    return squeezed


def _plain(a: Field, b: Field, f: Field) -> Field:
    return np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=np.float32)


def _gradient(a: Field, b: Field, f: Field) -> Field:
    return unit(a, 0.9)


def _striped(a: Field, b: Field, f: Field) -> Field:
    return unit(np.sin(f * a), 3.0)


def _checkered(a: Field, b: Field, f: Field) -> Field:
    slower = f * np.float32(0.7)
    return unit(np.sin(slower * a) * np.sin(slower * b), 4.0)


def _dotted(a: Field, b: Field, f: Field) -> Field:
    slower = f * np.float32(0.8)
    return unit(np.cos(slower * a) + np.cos(slower * b) - np.float32(0.9), 2.5)


def _cloudy(a: Field, b: Field, f: Field) -> Field:
    """Three waves that do not share a direction: no visible period within the image."""
    slow = f * np.float32(0.3)
    first = np.sin(slow * a + np.float32(1.3)) + np.sin(slow * np.float32(0.83) * b + f)
    return unit(first + np.sin(slow * (a - np.float32(0.7) * b) + np.float32(2.0) * f), 0.5)


def _grid(a: Field, b: Field, f: Field) -> Field:
    slower = f * np.float32(0.7)
    return unit(np.maximum(np.cos(slower * a), np.cos(slower * b)) - np.float32(0.85), 6.0)


def _wavy(a: Field, b: Field, f: Field) -> Field:
    return unit(np.sin(f * a + np.float32(1.6) * np.sin(np.float32(0.6) * f * b)), 3.0)


TEXTURES: dict[str, Callable[[Field, Field, Field], Field]] = {
    "plain": _plain,
    "gradient": _gradient,
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "cloudy": _cloudy,
    "grid": _grid,
    "wavy": _wavy,
}
"""Adjective for the background -> its field, from turned coordinates a, b and a frequency f."""
