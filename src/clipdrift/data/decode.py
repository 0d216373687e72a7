"""One image: from encoded bytes to the square of RGB pixels a backbone reads."""

from __future__ import annotations

import io
import os
import unicodedata
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from clipdrift.data.parts import Loaded
from clipdrift.paths import read_file

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash"]
"""How an image becomes a square: short side resized and centre cropped, or both sides resized."""

MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file can claim any size, and this
many pixels take up to 1 GB while they become RGB."""

MAX_BYTES = 250_000_000
"""Larger files are not read: as much as `MAX_PIXELS` take in a format that does not compress."""

_STRIP_PIXELS = 4_000_000

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Only these are tried, and those of `MORE`: some formats of Pillow start outside programs."""

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_PPM = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_JPEG, ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", *_PPM))
"""Of files with images, in any case of letters."""

MORE = {
    "AVIF": ((".avif",), "Pillow 11.3 or newer"),
    "HEIF": ((".heic", ".heif"), "pillow-heif"),
}
"""Formats that are read where the installed packages can: their suffixes, and what reads them."""

_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), "HEIF"
)
FEWEST_LEVELS = 4096
"""Of 65,536: a 16-bit image without a value from here on is one of 12 bits or fewer, and black."""

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Square(NamedTuple):
    """What images are made into: side S, resize filter (antialiased), and how they become square.

    resize_mode: "shortest" resizes the short side and crops, "squash" resizes both sides. resized:
    what a side is resized to before the square of S is cut out of the middle, if not S.
    """

    size: int
    interpolation: Interpolation
    resize_mode: ResizeMode = "shortest"
    resized: int | None = None

    def said(self) -> tuple[object, ...]:
        """All that is not as it is without saying."""
        return self[:3] if self.resized in (None, self.size) else self


@cache
def formats() -> tuple[str, ...]:
    """What Pillow reads here and may be asked to."""
    known = list(FORMATS)
    if features.check("avif"):
        known.append("AVIF")
    try:
        import pillow_heif
    except ImportError:
        return tuple(known)
    pillow_heif.register_heif_opener()
    return (*known, "HEIF")


@cache
def suffixes() -> frozenset[str]:
    """Of files with images of `formats`, in any case of letters."""
    return SUFFIXES.union(*(own for kind, (own, _) in MORE.items() if kind in formats()))


class UnreadableImageError(Exception):
    """An image that cannot be used; the message is the reason, for the list of bad images."""


def open_image(source: bytes | Path) -> Image.Image:
    """Open encoded bytes or a file; pixels are decoded later.

    Raises:
        UnreadableImageError: no such file, no plain file, no bytes or too many, an unknown format,
            too many pixels.
    """
    try:
        data = source if isinstance(source, bytes) else read_file(source, MAX_BYTES)
    except OSError as error:
        text = error.strerror or "cannot be read"
        raise UnreadableImageError(text[0].lower() + text[1:] + _spelt_otherwise(source)) from error
    if not data:
        raise UnreadableImageError("0 bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_unknown(data)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(_too_many("more")) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(_too_many(f"{image.width} x {image.height}"))
    return image


def _unknown(data: bytes) -> str:
    kind = _BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""
    if not kind or kind in formats():
        return "not an image of a known format"
    return f"{kind}, which is read with {MORE[kind][1]} installed"


def _spelt_otherwise(source: bytes | Path) -> str:
    """A file may be there under a name that looks the same: `é` as one character, or as two."""
    if isinstance(source, Path):
        for form in ("NFC", "NFD"):
            other = source.with_name(unicodedata.normalize(form, source.name))
            if other.name != source.name and os.path.exists(other):
                return f" (one is there whose name is in Unicode's form {form})"
    return ""


def to_square(
    loaded: Loaded,
    size: int,
    interpolation: Interpolation,
    resize_mode: ResizeMode = "shortest",
    resized: int | None = None,
) -> NDArray[np.uint8]:
    """uint8 [S, S, 3]: upright, RGB, resized with antialias; cropped where a side is longer than S.

    Sizes and offsets round as in transformers' CLIPImageProcessor with `shortest_edge` (or
    `height` and `width`) of `resized`, by default S, and `crop_size` of S, so that a backbone sees
    what its own processor would show it.

    Raises:
        UnreadableImageError: a pixel format without a fixed range, 16-bit values that would come
            out black, or a side ratio so extreme that the resized image would exceed `MAX_PIXELS`.
            Pillow's own errors pass through.
    """
    if isinstance(loaded, np.ndarray):
        if loaded.shape == (size, size, 3) and resized in (None, size):
            return loaded
        image = Image.fromarray(loaded)
    else:
        _require_full_range(loaded)
        image = to_rgb(_upright(loaded))
    width = height = resized or size
    if resize_mode == "shortest":
        width, height = resized_size(image.width, image.height, width)
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{image.width} x {image.height}: sides too unequal to resize")
    whole = np.asarray(image.resize((width, height), _FILTERS[interpolation]))
    top, left = (height - size) // 2, (width - size) // 2
    return whole[top : top + size, left : left + size]


def resized_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after the short side became `short_side`; the long one rounds down.

    >>> resized_size(500, 333, 224)
    (336, 224)
    """
    if width <= height:
        return short_side, int(short_side * height / width)
    return int(short_side * width / height), short_side


def _require_full_range(image: Image.Image) -> None:
    """Cameras and scanners write 12 bits into files of 16, whose white would be our black."""
    deep = any("16" in str(tile.args) for tile in getattr(image, "tile", ()))
    if image.mode.startswith("I;16"):
        largest = int(np.asarray(image).max())
    elif deep and image.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps the upper 8 bits of 16
        bands = image.getextrema()[: 1 if image.mode == "LA" else 3]
        largest = 256 * max(int(high) for _, high in bands)  # type: ignore[misc]
    else:
        return
    if 0 < largest < FEWEST_LEVELS:
        raise UnreadableImageError(
            f"values below {FEWEST_LEVELS:,} in a 16-bit file, which would come out black; "
            "save it with 8 bits, or scale the values to 0..65,535"
        )


def _upright(image: Image.Image) -> Image.Image:
    """As its EXIF says; without a turn Pillow would copy it all the same."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB; transparency is laid on white; 16-bit grey is scaled to 8 bits, not clipped.

    Strip by strip: the steps in between take several times the memory of the image.
    """
    if image.mode == "RGB" and image.info.get("transparency") is None:
        return image
    rows = max(1, _STRIP_PIXELS // image.width)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgb.paste(_opaque(image.crop(box)), box)
    return rgb


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnreadableImageError(f"pixel format {image.mode!r} has no fixed range")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _too_many(got: str) -> str:
    return f"{got} pixels; at most {MAX_PIXELS:,} are decoded"
