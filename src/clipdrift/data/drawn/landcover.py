"""Procedural land cover: ten classes of aerial-looking textures, unlike the embedded world.

Classes overlap on purpose (a dry pasture looks like young crops, a canal like a road, sparse
orchards like shrubs), and hue, season, haze and noise vary within each, so that the set can be
learned but not at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.drawn.textures import Field, pixel_grid, turned, unit
from clipdrift.data.drawn.world import checked_labels

_BLOCK = 256
_Rng = np.random.Generator

_GROUND: dict[str, tuple[float, float, float]] = {
    "soil": (0.47, 0.38, 0.28),
    "grass": (0.40, 0.48, 0.28),
    "wood": (0.17, 0.29, 0.19),
    "water": (0.16, 0.27, 0.36),
    "asphalt": (0.46, 0.46, 0.46),
    "roof": (0.66, 0.55, 0.50),
    "concrete": (0.70, 0.69, 0.66),
}


def render_land_cover(labels: NDArray[np.int64], *, seed: int, size: int = 28) -> NDArray[np.uint8]:
    """Draw one aerial-looking image per label.

    Args:
        labels: [N] in 0..9, see `LAND_COVER_CLASSES`.
        seed: non-negative; another seed gives other fields, roads and seasons.
        size: S, pixels per side.

    Returns:
        uint8 [N, S, S, 3], RGB. The same arguments give the same images; images of one class share
        a generator within each block of 256, so the other labels of the block matter too.

    Raises:
        DataError: labels out of range or a size below 8 pixels.

    >>> render_land_cover(np.arange(10), seed=0).shape
    (10, 28, 28, 3)
    """
    labels = checked_labels(labels, len(LAND_COVER_CLASSES), size)
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for start in range(0, len(labels), _BLOCK):
        part = labels[start : start + _BLOCK]
        images[start : start + len(part)] = _draw_block(part, seed, start // _BLOCK, size)
    return images


def _draw_block(labels: NDArray[np.int64], seed: int, block: int, size: int) -> NDArray[np.uint8]:
    canvas = np.empty((len(labels), size, size, 3), dtype=np.float32)
    for kind, draw in enumerate(_DRAW.values()):
        chosen = np.flatnonzero(labels == kind)
        if chosen.size:
            rng = np.random.default_rng([seed, block, kind])
            canvas[chosen] = draw(_Patch(chosen.size, size, rng))
    rng = np.random.default_rng([seed, block, len(_DRAW)])
    return _photographed(canvas, rng)


def _photographed(canvas: Field, rng: _Rng) -> NDArray[np.uint8]:
    """Season tint, haze, exposure and sensor noise, the same distribution for every class."""
    count = len(canvas)
    tint = rng.normal(1, 0.08, (count, 1, 1, 3)).astype(np.float32)
    haze = rng.uniform(0, 0.25, (count, 1, 1, 1)).astype(np.float32)
    gain = rng.uniform(0.75, 1.2, (count, 1, 1, 1)).astype(np.float32)
    sigma = rng.uniform(0.01, 0.04, (count, 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * sigma
    seen = (canvas * tint * (1 - haze) + np.float32(0.6) * haze) * gain + noise
    return (np.clip(seen, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


class _Patch:
    """The coordinates of B images of one class and its random generator."""

    def __init__(self, count: int, size: int, rng: _Rng) -> None:
        self.count, self.rng = count, rng
        self.x, self.y = pixel_grid(size)
        self.pixel = np.float32(2 / size)

    def draw(self, low: float, high: float) -> Field:
        """One uniform number per image, [B, 1, 1]."""
        return self.rng.uniform(low, high, (self.count, 1, 1)).astype(np.float32)

    def frame(self) -> tuple[Field, Field]:
        """Coordinates along and across a random direction, shifted at random."""
        along, across = turned(self.x, self.y, self.draw(0, np.pi))
        return along + self.draw(-1, 1), across + self.draw(-0.6, 0.6)

    def clouds(self, low: float, high: float, waves: int = 5) -> Field:
        """A smooth random field in about -1..1: waves of random direction and frequency."""
        total = np.zeros((self.count, self.y.size, self.x.size), dtype=np.float32)
        for _ in range(waves):
            a, _b = turned(self.x, self.y, self.draw(0, np.pi))
            total += np.sin(self.draw(low, high) * a + self.draw(0, 2 * np.pi))
        scaled: Field = total * np.float32(1.4 / waves)
        return scaled

    def speckle(self) -> Field:
        """Independent noise per pixel in -1..1."""
        shape = (self.count, self.y.size, self.x.size)
        return self.rng.random(shape, dtype=np.float32) * 2 - 1

    def line(self, distance: Field, width: Field) -> Field:
        """Coverage of a band of half `width` around distance 0, soft over one pixel."""
        cover: Field = np.clip((width - np.abs(distance)) / self.pixel + np.float32(0.5), 0, 1)
        return cover

    def colour(self, name: str, spread: float = 0.05) -> Field:
        """One colour per image around a kind of ground, [B, 1, 1, 3]."""
        jitter = self.rng.normal(0, spread, (self.count, 1, 1, 3)).astype(np.float32)
        return np.array(_GROUND[name], dtype=np.float32) + jitter

    def mix(self, first: Field, second: Field, weight: Field) -> Field:
        """From the first colour to the second by a weight [B, S, S] in [0, 1]."""
        mixed: Field = first + (second - first) * weight[..., None]
        return mixed

    def open_land(self) -> Field:
        """Fields seen from above: two tones, from soil to grass, in broad patches."""
        dry = self.mix(self.colour("soil"), self.colour("grass"), self.draw(0, 1))
        lush = self.mix(self.colour("soil"), self.colour("grass"), self.draw(0, 1))
        return self.mix(dry, lush, unit(self.clouds(1, 4), 1.5))


def _annual_crop(patch: _Patch) -> Field:
    """Parallel drill rows, sometimes faint, in one or two parcels."""
    along, across = patch.frame()
    rows = unit(np.sin(patch.draw(9, 26) * across + patch.clouds(1, 3) * 0.6), 1.5)
    parcel = unit(along * patch.draw(-1, 1), 12) * patch.draw(0, 1)
    land = patch.mix(patch.colour("soil"), patch.colour("grass"), rows * patch.draw(0.25, 0.9))
    return patch.mix(land, patch.colour("soil", 0.08), parcel * np.float32(0.6))


def _forest(patch: _Patch) -> Field:
    """Dark crowns that touch, with gaps."""
    crowns = unit(patch.clouds(8, 20, 7) + patch.speckle() * np.float32(0.5), 1.2)
    ground = patch.mix(patch.colour("wood"), patch.colour("grass"), crowns * patch.draw(0.2, 0.6))
    return patch.mix(ground, patch.open_land(), unit(patch.clouds(1, 4) - patch.draw(0.2, 1.2), 4))


def _shrubland(patch: _Patch) -> Field:
    """Open land with clumps at irregular places."""
    clumps = unit(patch.clouds(7, 17, 7) - patch.draw(0.1, 0.5), 4)
    return patch.mix(patch.open_land(), patch.colour("wood"), clumps * patch.draw(0.4, 0.9))


def _highway(patch: _Patch) -> Field:
    """A straight or gently bent paved band, sometimes crossed by another."""
    along, across = patch.frame()
    bend = patch.draw(-0.15, 0.15) * along * along
    road = patch.line(across + bend, patch.draw(0.06, 0.17))
    crossing = patch.line(along, patch.draw(0.04, 0.1)) * (patch.draw(0, 1) < 0.3)
    return patch.mix(patch.open_land(), patch.colour("asphalt", 0.07), np.maximum(road, crossing))


def _river(patch: _Patch) -> Field:
    """A winding band of water, wider than a road on average but not always."""
    along, across = patch.frame()
    course = across + patch.draw(0.05, 0.35) * np.sin(patch.draw(1.5, 4.5) * along)
    water = patch.line(course, patch.draw(0.08, 0.32))
    banks = patch.mix(patch.open_land(), patch.colour("wood"), unit(patch.clouds(3, 9), 2) * 0.6)
    return patch.mix(banks, patch.colour("water", 0.08), water)


def _pasture(patch: _Patch) -> Field:
    """Smooth grass, at times with a hedge or a faint mowing pattern."""
    _, across = patch.frame()
    mown = unit(np.sin(patch.draw(5, 16) * across)) * patch.draw(0, 0.3)
    grass = patch.mix(patch.colour("grass", 0.07), patch.open_land(), mown)
    hedge = patch.line(across - patch.draw(-1, 1), patch.draw(0.03, 0.09))
    return patch.mix(grass, patch.colour("wood"), hedge * (patch.draw(0, 1) < 0.45))


def _permanent_crop(patch: _Patch) -> Field:
    """Trees on a regular grid; the spacing across the rows differs from that along them."""
    along, across = patch.frame()
    first, second = patch.draw(9, 19), patch.draw(9, 19)
    trees = unit(np.cos(first * along) + np.cos(second * across) - patch.draw(0.2, 0.9), 1.6)
    return patch.mix(patch.open_land(), patch.colour("wood"), trees * patch.draw(0.35, 0.9))


def _built(patch: _Patch, roof: str, low: float, high: float, gaps: float) -> Field:
    """Rectangular roofs between streets, on a grid that is cut at random."""
    along, across = patch.frame()
    first, second = patch.draw(low, high), patch.draw(low, high)
    streets = np.maximum(np.cos(first * along), np.cos(second * across))
    roofs = unit(patch.draw(0.1, 0.6) - streets, 3)
    present = unit(patch.clouds(3, 9) + np.float32(gaps), 4)
    shade = patch.colour(roof, 0.09) * (1 + np.float32(0.25) * patch.clouds(4, 9)[..., None])
    yards = patch.mix(patch.colour("asphalt"), patch.colour("grass"), patch.draw(0, 1))
    return patch.mix(yards, shade, roofs * present)


def _sea_or_lake(patch: _Patch) -> Field:
    """Water with swell, at times with a shore."""
    _, across = patch.frame()
    swell = np.float32(0.12) * unit(np.sin(patch.draw(6, 20) * across + patch.clouds(1, 4)))
    water = patch.mix(patch.colour("water", 0.07), patch.colour("concrete"), swell)
    shore = unit(patch.clouds(1, 3) - patch.draw(0.5, 2.0), 8)
    return patch.mix(water, patch.open_land(), shore)


_DRAW: dict[str, Callable[[_Patch], Field]] = {
    "annual crop": _annual_crop,
    "forest": _forest,
    "shrubland": _shrubland,
    "highway": _highway,
    "industrial area": partial(_built, roof="concrete", low=3, high=8, gaps=0.5),
    "pasture": _pasture,
    "permanent crop": _permanent_crop,
    "residential area": partial(_built, roof="roof", low=7, high=14, gaps=0.2),
    "river": _river,
    "sea or lake": _sea_or_lake,
}

LAND_COVER_CLASSES: tuple[str, ...] = tuple(_DRAW)
"""Label -> name."""
