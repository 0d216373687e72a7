"""Corrupted copies of a test set: six kinds of damage in five severities, drawn per image.

The kinds and strengths are those of ImageNet-C, written anew. What differs: results are rounded,
not cut, to 8 bits; the reach of motion blur scales with the side of the image, so that small
images are not wiped out.

References: Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, section 3 and appendix B; for motion blur ImageMagick's `MotionBlurImage`,
which their code calls.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipdrift.errors import DataError, Fault

Pixels = NDArray[np.uint8]
_Rng = np.random.Generator

SEVERITIES: dict[str, tuple[Any, ...]] = {
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "jpeg": (25, 18, 15, 10, 7),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
}
"""Strength at severity 1 to 5: share of contrast kept; noise SD as a share of 255; share of values
set to 0 or 255; JPEG quality; radius, half of what the blur reaches, and SD in pixels of a 224 px
image; share of the side that is left."""

MAX_ANGLE_DEGREES = 45
"""Motion blur runs within this angle of the horizontal."""


def corrupt(
    images: Pixels, kind: str, severity: int, *, index: NDArray[np.int64], seed: int = 0
) -> Pixels:
    """One corrupted copy of each image.

    Args:
        images: uint8 [N, S, S, 3].
        kind: one of `SEVERITIES`.
        severity: 1 (weak) to 5 (strong).
        index: int64 [N], what names each image in its set. An image's damage is a function of
            (seed, kind, severity, index) and its pixels, whatever batch it comes in.
        seed: non-negative.

    Returns:
        uint8 [N, S, S, 3].

    Raises:
        DataError: an unknown kind, a severity outside 1..5, or one index too many or too few.
    """
    _require_known(kind, severity, len(images), len(index))
    strength = SEVERITIES[kind][severity - 1]
    number = list(SEVERITIES).index(kind) + 1
    damaged = np.empty_like(images)
    for place, name in enumerate(index):
        rng = np.random.default_rng([seed, number, severity, int(name) + 1])
        damaged[place] = _DAMAGE[kind](images[place], strength, rng)
    return damaged


def _require_known(kind: str, severity: int, n_images: int, n_names: int) -> None:
    faults = []
    if kind not in SEVERITIES:
        faults.append(Fault("corruption", f"one of {', '.join(SEVERITIES)}", kind, "Name one"))
    if severity not in range(1, 6):
        faults.append(Fault("severity", "1 to 5", str(severity), "Choose one of the five"))
    if n_images != n_names:
        faults.append(Fault("index", f"{n_images} values", str(n_names), "Give one per image"))
    if faults:
        raise DataError(faults)


def _rounded(values: NDArray[np.float64]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _contrast(image: Pixels, kept: float, rng: _Rng) -> Pixels:
    """Each channel drawn towards its own mean over the image."""
    values = image.astype(np.float64)
    mean = values.mean(axis=(0, 1))
    return _rounded((values - mean) * kept + mean)


def _gaussian_noise(image: Pixels, sd: float, rng: _Rng) -> Pixels:
    """Independent in every value."""
    return _rounded(image + 255 * sd * rng.standard_normal(image.shape))


def _impulse_noise(image: Pixels, share: float, rng: _Rng) -> Pixels:
    """Each value, by itself, becomes 0 or 255, equally often."""
    draws = rng.random(image.shape)
    damaged = image.copy()
    damaged[draws < share / 2] = 0
    damaged[draws > 1 - share / 2] = 255
    return damaged


def _jpeg(image: Pixels, quality: int, rng: _Rng) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pixelate(image: Pixels, share: float, rng: _Rng) -> Pixels:
    """Box averages on a coarser grid, enlarged without smoothing."""
    side = image.shape[0]
    coarse = max(1, int(side * share))
    small = Image.fromarray(image).resize((coarse, coarse), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX))


def _motion_blur(image: Pixels, reach: tuple[int, int], rng: _Rng) -> Pixels:
    """Weights of half a Gaussian along a line from each pixel; beyond its edges the image goes on.

    As if pixels had moved one way while the shutter was open.
    """
    angle = np.deg2rad(rng.uniform(-MAX_ANGLE_DEGREES, MAX_ANGLE_DEGREES))
    kernel = line_kernel(*reach, float(angle), scale=image.shape[0] / 224)
    margin, side = kernel.shape[0] // 2, image.shape[0]
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    blurred = np.zeros(image.shape, dtype=np.float64)
    for row, column in zip(*np.nonzero(kernel), strict=True):
        window = padded[row : row + side, column : column + side]
        blurred += kernel[row, column] * window
    return _rounded(blurred)


def line_kernel(
    radius: float, sd: float, angle: float, *, scale: float = 1.0
) -> NDArray[np.float64]:
    """Weights [2 M + 1, 2 M + 1] of a line from the centre outwards; they sum to 1.

    Points lie 0, 1, ..., 2 radius pixels from the centre, twice the radius as in ImageMagick, with
    weights exp(-i^2 / (2 sd^2)), and each counts for the pixel that it is nearest to.

    Args:
        radius, sd: in pixels of an image at scale 1.
        angle: in radians from the horizontal, downwards.
        scale: distances are this many times as long.

    >>> line_kernel(1, 1.0, 0.0).round(2)
    array([[0.  , 0.  , 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.57, 0.35, 0.08],
           [0.  , 0.  , 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  , 0.  ]])
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sd) ** 2)
    margin = int(np.ceil(steps[-1] * scale))
    right, down = (
        np.ceil(steps * scale * part - 0.5).astype(int) for part in (np.cos(angle), np.sin(angle))
    )
    kernel = np.zeros((2 * margin + 1, 2 * margin + 1))
    np.add.at(kernel, (margin + down, margin + right), weights)
    normalised: NDArray[np.float64] = kernel / kernel.sum()
    return normalised


_DAMAGE: dict[str, Callable[[Pixels, Any, _Rng], Pixels]] = {
    "contrast": _contrast,
    "gaussian_noise": _gaussian_noise,
    "impulse_noise": _impulse_noise,
    "jpeg": _jpeg,
    "motion_blur": _motion_blur,
    "pixelate": _pixelate,
}
