"""Signed distance fields of ten flat shapes: negative inside, in units of the shape's radius.

Every function takes coordinates u (right) and v (down), any equal shape, and returns a field of
that shape. Distances are exact or close to it near the outline, which is all anti-aliasing needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def _box(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    """Chebyshev distance to a box: sharp corners, exact along the edges."""
    return np.maximum(np.abs(u) - np.float32(half_width), np.abs(v) - np.float32(half_height))


def _disc(u: Field, v: Field, radius: float) -> Field:
    field: Field = np.sqrt(u * u + v * v) - np.float32(radius)
    return field


def _circle(u: Field, v: Field) -> Field:
    return _disc(u, v, 0.88)


def _square(u: Field, v: Field) -> Field:
    return _box(u, v, 0.78, 0.78)


def _triangle(u: Field, v: Field) -> Field:
    """Equilateral, one corner up, moved down so that its box is centred."""
    slanted = np.abs(u) * np.float32(0.8660254) - (v - np.float32(0.2)) * np.float32(0.5)
    field: Field = np.maximum(slanted, v - np.float32(0.2)) - np.float32(0.55)
    return field


def _star(u: Field, v: Field) -> Field:
    """Five points: the angle is folded into one tenth of a turn, which leaves a single edge."""
    step = np.float32(2 * np.pi / 5)
    angle = np.arctan2(u, -v)
    folded = np.abs(angle - step * np.round(angle / step))
    radius = np.sqrt(u * u + v * v)
    outer, inner = 1.1, 0.46
    edge_x, edge_y = inner * np.cos(np.pi / 5) - outer, inner * np.sin(np.pi / 5)
    length = np.hypot(edge_x, edge_y)
    across = (radius * np.cos(folded) - np.float32(outer)) * np.float32(edge_y / length)
    field = across - radius * np.sin(folded) * np.float32(edge_x / length)
    return field.astype(np.float32, copy=False)


def _cross(u: Field, v: Field) -> Field:
    return np.minimum(_box(u, v, 0.95, 0.3), _box(u, v, 0.3, 0.95))


def _ring(u: Field, v: Field) -> Field:
    field: Field = np.abs(_disc(u, v, 0.72)) - np.float32(0.24)
    return field


def _heart(u: Field, v: Field) -> Field:
    """A square on its corner with a half disc on each of its two upper edges."""
    half = np.float32(0.52)
    lowered = v + np.float32(0.12)
    s = (u - lowered) * np.float32(0.70710678)
    t = (-u - lowered) * np.float32(0.70710678)
    lobes = np.minimum(_disc(s - half, t, 0.52), _disc(s, t - half, 0.52))
    return np.minimum(lobes, _box(s, t, 0.52, 0.52))


def _crescent(u: Field, v: Field) -> Field:
    return np.maximum(_disc(u, v, 0.95), -_disc(u - np.float32(0.5), v - np.float32(0.1), 0.72))


def _arrow(u: Field, v: Field) -> Field:
    """A triangular head that points up on a straight shaft."""
    head = np.maximum(
        np.abs(u) * np.float32(0.78) - (v + np.float32(1.0)) * np.float32(0.62), v - np.float32(0)
    )
    field: Field = np.minimum(head, _box(u, v - np.float32(0.45), 0.26, 0.5))
    return field


def _oval(u: Field, v: Field) -> Field:
    squashed = v * np.float32(2.1)
    field: Field = (np.sqrt(u * u + squashed * squashed) - np.float32(1.0)) * np.float32(0.6)
    return field


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "crescent": _crescent,
    "arrow": _arrow,
    "oval": _oval,
}
"""Name of a shape -> its field. The order fixes the class labels of the world."""
