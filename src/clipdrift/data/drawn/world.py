"""The embedded world: 100 classes of coloured shapes on textured backgrounds, with captions.

Images are drawn in blocks of `BLOCK` from generators keyed by (seed, stream, block), always for a
whole block: image i is a function of (seed, i, label i, size) alone, however many are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.drawn.shapes import SHAPES
from clipdrift.data.drawn.textures import TEXTURES, Field, pixel_grid, turned
from clipdrift.errors import DataError, Fault

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.12),
    "orange": (0.98, 0.54, 0.08),
    "yellow": (0.97, 0.90, 0.15),
    "green": (0.13, 0.62, 0.20),
    "blue": (0.12, 0.28, 0.86),
    "purple": (0.52, 0.15, 0.68),
    "pink": (0.98, 0.60, 0.76),
    "brown": (0.45, 0.26, 0.12),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
"""Linear mixing is done on these display values in [0, 1]; no gamma is modelled."""

WORLD_CLASSES: tuple[str, ...] = tuple(
    f"{colour} {shape}" for colour in COLOURS for shape in SHAPES
)
"""Label -> name: label = 10 * colour + shape."""

CAPTION_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a {}",
    "a drawing of a {}",
    "there is a {} in the picture",
    "a {} on a {texture} background",
    "a photo of a {} on a {texture} background",
)

BLOCK = 256
_SHAPES = tuple(SHAPES.values())
_TEXTURES = tuple(TEXTURES)
PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_SCENE, _TEXTURE, _NOISE, _CAPTION = range(4)


def checked_labels(labels: NDArray[np.int64], n_classes: int, size: int) -> NDArray[np.int64]:
    """Labels as int64 [N] within [0, n_classes), for a drawable image size.

    Raises:
        DataError: wrong dimensions, a label out of range, or a size below 8 pixels.
    """
    array = np.asarray(labels, dtype=np.int64)
    if array.ndim != 1 or (array.size and not 0 <= array.min() <= array.max() < n_classes):
        raise DataError(
            Fault(
                "labels",
                f"one dimension with values in 0..{n_classes - 1}",
                f"shape {array.shape}" if array.ndim != 1 else f"{array.min()}..{array.max()}",
                "Pass class labels of this set",
            )
        )
    if size < 8:
        raise DataError(Fault("size", "at least 8 pixels", str(size), "Ask for a larger image"))
    return array


def world_textures(count: int, *, seed: int) -> list[str]:
    """The background word of each of the first `count` images of `render_world(seed=seed)`."""
    return [_TEXTURES[kind] for block in _blocks(count) for kind in _kinds(seed, block)][:count]


def world_captions(labels: NDArray[np.int64], *, seed: int) -> list[str]:
    """Captions of `render_world(labels, seed=seed)`: the class always, the background sometimes."""
    labels = checked_labels(labels, len(WORLD_CLASSES), 28)
    textures = world_textures(len(labels), seed=seed)
    picks = np.random.default_rng([seed, _CAPTION]).integers(
        len(CAPTION_TEMPLATES), size=len(labels)
    )
    return [
        CAPTION_TEMPLATES[pick].format(WORLD_CLASSES[label], texture=texture)
        for pick, label, texture in zip(picks, labels, textures, strict=True)
    ]


def render_world(labels: NDArray[np.int64], *, seed: int, size: int = 28) -> NDArray[np.uint8]:
    """Draw one image per label.

    Args:
        labels: [N] in 0..99, see `WORLD_CLASSES`.
        seed: non-negative; another seed gives other positions, colours and backgrounds.
        size: S, pixels per side.

    Returns:
        uint8 [N, S, S, 3], RGB. Image i depends on (seed, i, labels[i], size) only.

    Raises:
        DataError: labels out of range or a size below 8 pixels.

    >>> render_world(np.array([0, 99]), seed=1).shape
    (2, 28, 28, 3)
    """
    labels = checked_labels(labels, len(WORLD_CLASSES), size)
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for block in _blocks(len(labels)):
        part = labels[block * BLOCK : (block + 1) * BLOCK]
        images[block * BLOCK : block * BLOCK + len(part)] = _draw_block(part, seed, block, size)
    return images


def _blocks(count: int) -> range:
    return range(-(-count // BLOCK))


def _kinds(seed: int, block: int) -> NDArray[np.int64]:
    rng = np.random.default_rng([seed, _TEXTURE, block])
    return rng.integers(len(_TEXTURES), size=BLOCK)


def _draw_block(labels: NDArray[np.int64], seed: int, block: int, size: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, _SCENE, block])
    x, y = pixel_grid(size)
    colours = jittered(PALETTE[labels // 10], rng)
    canvas = background(_kinds(seed, block), colours, x, y, rng)
    paste(canvas, *_distractor(len(labels), x, y, rng))
    paste(canvas, shape_alpha(labels % 10, x, y, placed(len(labels), rng), rng), colours)
    gain = _column(rng.uniform(0.78, 1.12, BLOCK), len(labels))
    sigma = _column(rng.uniform(0.01, 0.05, BLOCK), len(labels))
    noise_rng = np.random.default_rng([seed, _NOISE, block])
    noise = noise_rng.standard_normal((BLOCK, size, size, 3), dtype=np.float32)
    canvas = canvas * gain[..., None] + noise[: len(labels)] * sigma[..., None]
    return (np.clip(canvas, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _column(values: NDArray[Any], count: int) -> Field:
    """The first `count` of a block's draws as float32 [count, 1, 1]."""
    return values[:count].astype(np.float32)[:, None, None]


def jittered(base: Field, rng: np.random.Generator) -> Field:
    """Colours [B, 3], each a little off."""
    jitter = rng.normal(0, 0.035, (BLOCK, 3)).astype(np.float32)[: len(base)]
    colours: Field = np.clip(base + jitter, 0, 1)
    return colours


def _farthest(colours: Field, rng: np.random.Generator, draws: int) -> Field:
    """Of some random colours per image, the one that stands out most from `colours` [B, 3]."""
    candidates = rng.random((BLOCK, draws, 3), dtype=np.float32)[: len(colours)]
    best = np.abs(candidates - colours[:, None]).sum(axis=2).argmax(axis=1)
    chosen: Field = candidates[np.arange(len(colours)), best]
    return chosen


def background(
    kinds: NDArray[np.int64], colours: Field, x: Field, y: Field, rng: np.random.Generator
) -> Field:
    """Textures by number [B] in two colours that stand off `colours` [B, 3]: [B, S, S, 3]."""
    count = len(colours)
    angle = _column(rng.uniform(0, np.pi, BLOCK), count)
    frequency = _column(rng.uniform(6, 14, BLOCK), count)
    shift = [_column(rng.uniform(-1, 1, BLOCK), count) for _ in range(2)]
    first, second = _farthest(colours, rng, 3), _farthest(colours, rng, 3)
    a, b = turned(x + shift[0], y + shift[1], angle)
    mix = np.empty(a.shape, dtype=np.float32)
    for kind, name in enumerate(_TEXTURES):
        chosen = kinds[:count] == kind
        mix[chosen] = TEXTURES[name](a[chosen], b[chosen], frequency[chosen])
    # Two tones that differ in full would hide the shape's outline at 28 px.
    span = (second - first) * np.float32(0.6)
    return first[:, None, None, :] + mix[..., None] * span[:, None, None, :]


def _distractor(count: int, x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A small round blob of any colour, in about half of the images, behind the shape."""
    centre = [_column(rng.uniform(-0.95, 0.95, BLOCK), count) for _ in range(2)]
    radius = _column(rng.uniform(0.08, 0.2, BLOCK), count)
    present = _column(rng.random(BLOCK) < 0.5, count)
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2) - radius
    alpha = np.clip(np.float32(0.5) - distance * np.float32(x.shape[-1] / 2), 0, 1) * present
    return alpha, rng.random((BLOCK, 3), dtype=np.float32)[:count]


def placed(count: int, rng: np.random.Generator) -> tuple[Field, list[Field]]:
    """Radius and centre (x, y) of each image's shape, [B, 1, 1] each, of half the image's width."""
    radius = _column(rng.uniform(0.4, 0.7, BLOCK), count)
    reach = np.float32(0.95) - radius
    return radius, [_column(rng.uniform(-1, 1, BLOCK), count) * reach for _ in range(2)]


def shape_alpha(
    kinds: NDArray[np.int64],
    x: Field,
    y: Field,
    where: tuple[Field, list[Field]],
    rng: np.random.Generator,
) -> Field:
    """Coverage [B, S, S] of each image's shape: its field, softened over one pixel.

    Args:
        where: as `placed` gives it.
    """
    count, (radius, centre) = len(kinds), where
    angle = _column(rng.uniform(-0.6, 0.6, BLOCK), count)
    u, v = turned((x - centre[0]) / radius, (y - centre[1]) / radius, angle)
    field = np.empty(u.shape, dtype=np.float32)
    for kind, shape in enumerate(_SHAPES):
        chosen = kinds == kind
        field[chosen] = shape(u[chosen], v[chosen])
    in_pixels = field * radius * np.float32(x.shape[-1] / 2)
    coverage: Field = np.clip(np.float32(0.5) - in_pixels, 0, 1)
    return coverage


def paste(canvas: Field, alpha: Field, colours: Field) -> None:
    """Cover `canvas` [B, S, S, 3] with one colour per image where `alpha` [B, S, S] says so."""
    canvas += alpha[..., None] * (colours[:, None, None, :] - canvas)
