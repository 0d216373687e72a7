"""Corruptions against closed forms, Pillow and scipy."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from clipdrift.data.corruptions import SEVERITIES, corrupt, line_kernel
from clipdrift.errors import DataError

SIDE = 56


@pytest.fixture
def images() -> np.ndarray:
    """Six smooth scenes with some texture."""
    y, x = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(0)
    scenes = [
        np.stack([128 + 90 * np.sin(x / (4 + i + c) + y / (9 - c)) for c in range(3)], axis=-1)
        for i in range(6)
    ]
    noisy = np.stack(scenes) + rng.normal(0, 4, (6, SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def damaged(images: np.ndarray, kind: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(images, kind, severity, index=np.arange(len(images)), seed=seed)


def flat(level: int, count: int = 6) -> np.ndarray:
    return np.full((count, SIDE, SIDE, 3), level, dtype=np.uint8)


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_is_the_formula(images: np.ndarray, severity: int) -> None:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    seen = damaged(images, "contrast", severity)
    for image, result in zip(images, seen, strict=True):
        for channel in range(3):
            values = image[..., channel].astype(float)
            mean = values.sum() / values.size
            expected = mean + kept * (values - mean)
            assert np.abs(result[..., channel] - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("severity", [1, 2])
def test_noise_has_the_stated_spread_around_the_image(severity: int) -> None:
    sd = 255 * (0.08, 0.12)[severity - 1]
    noise = damaged(flat(128), "gaussian_noise", severity).astype(float) - 128
    # 56448 values, and no clipping within 4 SD: 4 standard errors of the SD, plus rounding.
    assert abs(noise.std() - np.sqrt(sd**2 + 1 / 12)) < 4 * sd / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * sd / np.sqrt(noise.size)
    spread = noise.ravel() + np.random.default_rng(1).uniform(-0.5, 0.5, noise.size)
    assert stats.kstest(spread, "norm", args=(0, sd)).pvalue > 1e-3


@pytest.mark.parametrize("severity", range(3, 6))
def test_strong_noise_is_clipped_where_a_normal_says(severity: int) -> None:
    sd = 255 * (0.18, 0.26, 0.38)[severity - 3]
    seen = damaged(flat(128), "gaussian_noise", severity)
    for level, expected in (
        (0, stats.norm.cdf(0.5, 128, sd)),
        (255, stats.norm.sf(254.5, 128, sd)),
    ):
        share = (seen == level).mean()
        assert abs(share - expected) < 5 * np.sqrt(expected / seen.size) + 1e-12


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_stated_share_of_values_is_hit_by_impulses(severity: int) -> None:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    seen = damaged(flat(100), "impulse_noise", severity)
    error = 5 * np.sqrt(share / 2 / seen.size)
    assert abs((seen == 0).mean() - share / 2) < error
    assert abs((seen == 255).mean() - share / 2) < error
    assert set(np.unique(seen)) == {0, 100, 255}
    hit = seen != 100
    both = (hit[..., 0] & hit[..., 1]).mean()
    assert abs(both - share**2) < 5 * np.sqrt(share**2 / (seen.size / 3))


@pytest.mark.parametrize("severity", range(1, 6))
def test_jpeg_is_pillows_at_the_stated_quality(images: np.ndarray, severity: int) -> None:
    quality = (25, 18, 15, 10, 7)[severity - 1]
    seen = damaged(images, "jpeg", severity)
    for image, result in zip(images, seen, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="jpeg", quality=quality)
        assert np.array_equal(result, np.asarray(Image.open(io.BytesIO(file.getvalue()))))


@pytest.mark.parametrize(("severity", "cell"), [(2, 2), (5, 4)])
def test_pixelate_is_the_average_of_square_cells(
    images: np.ndarray, severity: int, cell: int
) -> None:
    coarse = SIDE // cell
    averages = images.reshape(-1, coarse, cell, coarse, cell, 3).mean(axis=(2, 4))
    expected = averages.repeat(cell, axis=1).repeat(cell, axis=2)
    seen = damaged(images, "pixelate", severity)
    # Pillow rounds after each of its two passes.
    assert np.abs(seen - expected).max() <= 1
    blocks = seen.reshape(-1, coarse, cell, coarse, cell, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()


@pytest.mark.parametrize("severity", [1, 3, 4])
def test_pixelate_leaves_as_many_cells_as_stated(images: np.ndarray, severity: int) -> None:
    coarse = int(SIDE * (0.6, 0.5, 0.4, 0.3)[severity - 1])
    seen = damaged(images, "pixelate", severity)[0]
    columns = [tuple(seen[:, i].ravel()) for i in range(SIDE)]
    changes = sum(before != after for before, after in itertools.pairwise(columns))
    assert changes + 1 == coarse


def test_a_level_line_is_a_row_of_half_normal_weights() -> None:
    kernel = line_kernel(3, 2.0, 0.0)
    assert kernel.shape == (13, 13)
    weights = stats.norm.pdf(np.arange(7), scale=2.0)
    np.testing.assert_allclose(kernel[6, 6:], weights / weights.sum(), rtol=1e-12)
    kernel[6, 6:] = 0
    assert not kernel.any()


@pytest.mark.parametrize("angle", [-0.7, -0.2, 0.35, 0.78])
@pytest.mark.parametrize("scale", [1.0, 0.25, 0.125])
def test_a_slanted_line_keeps_its_moments_at_every_size(angle: float, scale: float) -> None:
    kernel = line_kernel(20, 15.0, angle, scale=scale)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    steps = np.arange(41)
    weights = np.exp(-(steps**2) / (2 * 15.0**2)) / np.exp(-(steps**2) / (2 * 15.0**2)).sum()
    # A point is at most half a pixel from its own, in each direction, and most of that cancels.
    assert (kernel * along).sum() == pytest.approx(scale * (weights * steps).sum(), abs=0.2)
    assert (kernel * along**2).sum() == pytest.approx(
        scale**2 * (weights * steps**2).sum(), rel=0.1
    )
    assert abs((kernel * across).sum()) < 0.2
    assert (kernel * across**2).sum() < 0.2


def imagemagick(image: np.ndarray, radius: int, sd: float, degrees: float) -> np.ndarray:
    """MotionBlurImage again, pixel by pixel of the kernel: shifted copies under weights."""
    width = 2 * radius + 1
    kernel = [np.exp(-i * i / (2 * sd * sd)) / (np.sqrt(2 * np.pi) * sd) for i in range(width)]
    point = (width * np.sin(np.deg2rad(degrees)), width * np.cos(np.deg2rad(degrees)))
    rows, columns = np.arange(image.shape[0]), np.arange(image.shape[1])
    total = np.zeros(image.shape)
    for i in range(width):
        right = int(np.ceil(i * point[1] / np.hypot(*point) - 0.5))
        down = int(np.ceil(i * point[0] / np.hypot(*point) - 0.5))
        y = np.clip(rows + down, 0, len(rows) - 1)  # its virtual pixels repeat the edge
        x = np.clip(columns + right, 0, len(columns) - 1)
        total += kernel[i] * image[np.ix_(y, x)]
    return total / sum(kernel)


@pytest.mark.parametrize("severity", range(1, 6))
def test_motion_blur_is_imagemagicks_at_224_pixels(severity: int) -> None:
    radius, sd = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    y, x = np.mgrid[:224, :224]
    scene = 128 + 100 * np.sin(x / 5 + y / 9)[..., None] * np.array([1, 0.5, -1])
    image = np.clip(scene, 0, 255).astype(np.uint8)[None]
    seen = corrupt(image, "motion_blur", severity, index=np.array([4]))[0]
    angle = np.random.default_rng([0, 5, severity, 5]).uniform(-45, 45)
    expected = imagemagick(image[0].astype(float), radius, sd, angle)
    assert np.abs(seen - expected).max() <= 0.5 + 1e-9


def test_small_images_are_blurred_by_the_same_line_in_small(images: np.ndarray) -> None:
    seen = damaged(images, "motion_blur", 5)
    for i, image in enumerate(images):
        rng = np.random.default_rng([0, 5, 5, i + 1])
        kernel = line_kernel(20, 15, np.deg2rad(rng.uniform(-45, 45)), scale=SIDE / 224)
        for channel in range(3):
            values = image[..., channel].astype(float)
            expected = ndimage.correlate(values, kernel, mode="nearest")
            assert np.abs(seen[i, ..., channel] - expected).max() <= 0.5 + 1e-9


# Whether coarser cells move an image further depends on how they meet its pattern.
@pytest.mark.parametrize("kind", [kind for kind in SEVERITIES if kind != "pixelate"])
def test_a_higher_severity_moves_the_image_further(images: np.ndarray, kind: str) -> None:
    images = np.concatenate([images] * 10)  # motion blur draws an angle for each
    distances = [
        np.abs(damaged(images, kind, severity).astype(int) - images).mean()
        for severity in range(1, 6)
    ]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all()


@pytest.mark.parametrize("kind", list(SEVERITIES))
def test_damage_does_not_depend_on_the_batch(images: np.ndarray, kind: str) -> None:
    whole = corrupt(images, kind, 3, index=np.arange(10, 16), seed=4)
    picked = corrupt(images[[4, 1]], kind, 3, index=np.array([14, 11]), seed=4)
    assert np.array_equal(whole[[4, 1]], picked)
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape


@pytest.mark.parametrize("kind", ["gaussian_noise", "impulse_noise", "motion_blur"])
def test_images_and_seeds_draw_on_their_own(images: np.ndarray, kind: str) -> None:
    same = images[[0, 0]]
    first = damaged(same, kind, 5)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, damaged(same, kind, 5, seed=1))


def test_the_input_is_left_alone(images: np.ndarray) -> None:
    before = images.copy()
    images.flags.writeable = False
    for kind in SEVERITIES:
        damaged(images, kind, 5)
    assert np.array_equal(images, before)


def test_every_fault_is_told() -> None:
    with pytest.raises(DataError) as raised:
        corrupt(flat(0, 2), "fog", 6, index=np.arange(3))
    assert str(raised.value).splitlines() == [
        f"corruption: expected one of {', '.join(SEVERITIES)}, got fog. Name one.",
        "severity: expected 1 to 5, got 6. Choose one of the five.",
        "index: expected 2 values, got 3. Give one per image.",
    ]
