"""Pictures with captions: the shapes of the embedded world, told with size and place.

A model of the world knows colours and shapes by name, and some backgrounds. Of size and place it
was never told, so there is something to be learned. Captions of an image are of 2 to 4 kinds, each
with a part of what there is to see; several images may share one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.drawn.textures import TEXTURES, pixel_grid
from clipdrift.data.drawn.world import (
    BLOCK,
    PALETTE,
    WORLD_CLASSES,
    background,
    jittered,
    paste,
    placed,
    shape_alpha,
)

CAPTION_KINDS: tuple[str, ...] = (
    "a {size} {name} {place}",
    "a {name} on a {texture} background",
    "a {size} {name} on a {texture} background",
    "there is a {name} {place} on a {texture} background",
)
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
LARGE, MIDDLE = 0.55, 0.15
"""Radius from which a shape is large, and how far off it is in the middle, of half the width."""
FEWEST_KINDS = 2

Scenes = tuple[NDArray[np.uint8], list[tuple[str, ...]]]
"""Pictures [N, S, S, 3], RGB, and the captions of each."""


def render_scenes(count: int, *, seed: int, size: int = 28) -> Scenes:
    """Draw pictures and write their captions.

    Args:
        seed: non-negative; picture i depends on (seed, i, size) alone.
        size: S, pixels per side.

    >>> render_scenes(1, seed=0)[1]
    [('a white ring on a gradient background', 'a small white ring on a gradient background')]
    """
    blocks = [_block(seed, block, size) for block in range(-(-count // BLOCK))]
    captions = [own for _, told in blocks for own in told][:count]
    return np.concatenate([pixels for pixels, _ in blocks])[:count], captions


def _block(seed: int, block: int, size: int) -> Scenes:
    rng = np.random.default_rng([seed, block])
    labels = rng.integers(len(WORLD_CLASSES), size=BLOCK)
    textures = rng.integers(len(TEXTURES), size=BLOCK)
    x, y = pixel_grid(size)
    colours = jittered(PALETTE[labels // 10], rng)
    canvas = background(textures, colours, x, y, rng)
    where = placed(BLOCK, rng)
    paste(canvas, shape_alpha(labels % 10, x, y, where, rng), colours)
    canvas += np.float32(0.02) * rng.standard_normal(canvas.shape, dtype=np.float32)
    pixels = (np.clip(canvas, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    radius, (across, down) = where[0].ravel(), (axis.ravel() for axis in where[1])
    names = list(TEXTURES)
    captions = []
    for i in range(BLOCK):
        told = {
            "name": WORLD_CLASSES[labels[i]],
            "texture": names[textures[i]],
            "size": "large" if radius[i] >= LARGE else "small",
            "place": PLACES[_third(down[i])][_third(across[i])],
        }
        several = rng.integers(FEWEST_KINDS, len(CAPTION_KINDS) + 1)
        kinds = np.sort(rng.permutation(len(CAPTION_KINDS))[:several])
        captions.append(tuple(CAPTION_KINDS[kind].format(**told) for kind in kinds))
    return pixels, captions


def _third(value: float) -> int:
    """0, 1 or 2: left or above, in the middle, right or below."""
    return int(value > -MIDDLE) + int(value > MIDDLE)
