"""Decoding holds to transformers' own processor, and refuses what cannot be shown truly."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from clipdrift.data import decode
from clipdrift.data.decode import UnreadableImageError, open_image, resized_size, to_square

RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def picture(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    """A smooth scene with hard edges and some noise: all that a resize can get wrong."""
    rng = np.random.default_rng([width, height])
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / (3 + c) + y / (7 - c)) for c in range(channels)]
    scene = np.stack(waves, axis=-1) + rng.normal(0, 6, (height, width, channels))
    scene[height // 3 : height // 2, width // 4 : width // 2] = 255
    return np.clip(scene, 0, 255).astype(np.uint8)


def processed(image: Image.Image, size: int, interpolation: str) -> NDArray[np.uint8]:
    """What transformers makes of an upright image, as levels of 0 to 255."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=RESAMPLE[interpolation],
        do_rescale=False,
        do_normalize=False,
    )
    pixels = processor(image, return_tensors="np")["pixel_values"][0]
    return np.asarray(pixels).transpose(1, 2, 0).astype(np.uint8)


def assert_within_one_level(image: Image.Image, upright: Image.Image, size: int) -> None:
    for interpolation in ("bicubic", "bilinear"):
        ours = to_square(image, size, interpolation)
        theirs = processed(upright, size, interpolation)
        assert ours.shape == theirs.shape == (size, size, 3)
        assert ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (31, 47), (47, 31), (500, 333), (333, 500), (225, 224), (224, 225), (28, 91)],
)
@pytest.mark.parametrize("size", [28, 33, 56])
def test_resize_and_crop_agree_with_transformers(width: int, height: int, size: int) -> None:
    image = Image.fromarray(picture(width, height))
    assert_within_one_level(image, image, size)


def test_modes_agree_with_transformers() -> None:
    colours = Image.fromarray(picture(61, 45))
    alpha = Image.fromarray(picture(61, 45, 4), "RGBA")
    palette = colours.quantize(32)
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    for image in (
        colours.convert("L"),
        colours.convert("1"),
        colours.convert("CMYK"),
        alpha,
        alpha.convert("LA"),
        palette,
        see_through,
    ):
        assert_within_one_level(image, image, 28)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (40, 30), (10, 200, 30, 0))
    assert (to_square(clear, 28, "bicubic") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright_by_its_exif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = io.BytesIO()
    Image.fromarray(picture(60, 40)).save(encoded, "PNG", exif=exif)
    raw = picture(60, 40)
    upright = {
        1: raw,
        2: raw[:, ::-1],
        3: raw[::-1, ::-1],
        4: raw[::-1],
        5: raw.transpose(1, 0, 2),
        6: np.rot90(raw, -1),
        7: raw[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(raw, 1),
    }[orientation]
    expected = Image.fromarray(np.ascontiguousarray(upright))
    opened = open_image(encoded.getvalue())
    assert_within_one_level(opened, expected, 28)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(opened)), upright)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    encoded = io.BytesIO()
    Image.fromarray(ramp).save(encoded, "PNG")
    seen = to_square(open_image(encoded.getvalue()), 28, "bicubic")
    assert np.abs(seen[..., 0] - ramp / 257).max() <= 0.5
    assert (seen[..., 0] == seen[..., 1]).all()
    assert (seen[..., 0] == seen[..., 2]).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"'{mode}' has no fixed range"):
        to_square(Image.new(mode, (30, 30)), 28, "bicubic")


def test_an_array_of_the_right_size_is_kept_and_others_are_resized() -> None:
    pixels = picture(28, 28)
    assert np.array_equal(to_square(pixels, 28, "bilinear"), pixels)
    assert np.array_equal(
        to_square(pixels, 40, "bicubic"), to_square(Image.fromarray(pixels), 40, "bicubic")
    )


def test_the_long_side_rounds_down() -> None:
    assert resized_size(500, 333, 224) == (int(224 * 500 / 333), 224)
    assert resized_size(333, 500, 224) == (224, 336)
    assert resized_size(224, 224, 224) == (224, 224)


def test_an_image_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = io.BytesIO()
    Image.new("1", (4000, 3000)).save(encoded, "PNG")
    assert len(encoded.getvalue()) < 10_000
    monkeypatch.setattr(decode, "MAX_PIXELS", 11_999_999)
    with pytest.raises(UnreadableImageError, match="4000 x 3000 pixels; at most 11,999,999"):
        open_image(encoded.getvalue())
    monkeypatch.setattr(decode, "MAX_PIXELS", 12_000_000)
    assert open_image(encoded.getvalue()).size == (4000, 3000)


def test_a_header_that_claims_a_huge_image_is_refused() -> None:
    lines = b"P6\n60000 60000\n255\n"
    with pytest.raises(UnreadableImageError, match=r"more pixels; at most 80,000,000"):
        open_image(lines + b"\0" * 100)


def test_a_thread_of_an_image_does_not_blow_up_when_resized() -> None:
    with pytest.raises(UnreadableImageError, match="1 x 100000: sides too unequal"):
        to_square(Image.new("RGB", (1, 100_000)), 224, "bicubic")


def test_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"^no such file or directory$"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(UnreadableImageError, match=r"^0 bytes$"):
        open_image(b"")
    with pytest.raises(UnreadableImageError, match=r"^not an image of a known format$"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@pytest.mark.parametrize("side", [32, 64, 91])
def test_bilinear_with_antialias_is_a_triangle_filter(side: int) -> None:
    """The weights of every output pixel written out: a triangle as wide as one output pixel."""
    pixels = picture(side, side)
    scale = side / 28
    reach = max(1.0, scale)
    centres = (np.arange(28) + 0.5) * scale - 0.5
    weights = np.clip(1 - np.abs(np.arange(side) - centres[:, None]) / reach, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("rh,hwk,cw->rck", weights, pixels, weights)
    # Pillow rounds after each of its two passes.
    assert np.abs(to_square(pixels, 28, "bilinear") - expected).max() <= 1 + 1e-9


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_twelve_bits_in_a_file_of_sixteen_are_refused_and_not_shown_black(kind: str) -> None:
    """Grey is read as it is; of 16-bit colour Pillow keeps the upper bits alone."""
    scene = picture(40, 30)[..., 0].astype(np.uint16)

    def read(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
        out = io.BytesIO()
        Image.fromarray(values).save(out, kind)
        return to_square(open_image(out.getvalue()), 28, "bicubic")

    with pytest.raises(UnreadableImageError, match=r"below 4,096 in a 16-bit file.*scale"):
        read(scene * 16)
    eight = to_square(Image.fromarray(scene.astype(np.uint8)), 28, "bicubic")
    assert np.array_equal(read(scene * 257), eight)
    assert read(np.zeros_like(scene)).max() == 0  # black is black
    assert read(np.full_like(scene, 4096)).max() == 16


def png_of_16_bit_colour(values: NDArray[np.uint16]) -> bytes:
    """Pillow writes none: an RGB PNG of 16 bits, by the format's own definition."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_twelve_bits_of_colour_are_refused_too() -> None:
    scene = picture(40, 30).astype(np.uint16)
    with pytest.raises(UnreadableImageError, match=r"below 4,096 in a 16-bit file"):
        to_square(open_image(png_of_16_bit_colour(scene * 16)), 28, "bicubic")
    whole = to_square(open_image(png_of_16_bit_colour(scene * 257)), 28, "bicubic")
    assert np.array_equal(whole, to_square(picture(40, 30), 28, "bicubic"))


@pytest.mark.parametrize(("kind", "suffix"), [("AVIF", ".avif"), ("HEIF", ".heic")])
def test_avif_and_heic_are_read_where_pillow_can(kind: str, suffix: str, tmp_path: Path) -> None:
    assert {kind} <= set(decode.formats())
    assert suffix in decode.suffixes()
    scene = Image.fromarray(picture(64, 48))
    scene.save(tmp_path / f"x{suffix}", kind, quality=100)
    read = to_square(open_image(tmp_path / f"x{suffix}"), 28, "bicubic").astype(int)
    assert np.abs(read - to_square(scene, 28, "bicubic")).mean() < 4  # both formats lose a little


@pytest.mark.parametrize(
    ("brand", "needed"), [(b"heic", "HEIF.*pillow-heif"), (b"avif", "AVIF.*Pillow 11")]
)
def test_formats_that_are_not_installed_are_named(
    brand: bytes, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "formats", lambda: decode.FORMATS)
    with pytest.raises(UnreadableImageError, match=needed):
        open_image(b"\0\0\0\x18ftyp" + brand + b"\0" * 40)


def test_a_pipe_and_a_sparse_file_are_unreadable_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="no plain file"):
        open_image(tmp_path / "x.png")
    with (tmp_path / "y.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(3_000_000_000)
    with pytest.raises(UnreadableImageError, match="at most 250 MB are read"):
        open_image(tmp_path / "y.png")


def test_a_file_under_a_name_that_only_looks_the_same_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "Ba\u0308r.png")
    with pytest.raises(UnreadableImageError, match=r"no such file.*Unicode's form NFD"):
        open_image(tmp_path / "B\u00e4r.png")
