"""Image files, as a part of a dataset decodes them."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from fuzz.strategies import damaged
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from PIL import Image

from clipdrift.data.cache import prepare
from clipdrift.data.decode import FORMATS, Square
from clipdrift.spec.datasets import DatasetSpec

SIZE = 16


def feed(data: bytes, folder: Path) -> None:
    """Beside good images: unreadable ones are listed, and no pixel of another image changes."""
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "b").mkdir()
    (folder / "set" / "a" / "good.png").write_bytes(_good())
    (folder / "set" / "a" / "other.jpg").write_bytes(data)
    (folder / "set" / "b" / "good.png").write_bytes(_good())
    (folder / "set" / "b" / "again.png").write_bytes(_good())
    spec = DatasetSpec(name="set", folder=str(folder / "set"), max_bad_images=1)
    parts = prepare(spec, Square(SIZE, "bicubic"), cache_dir=folder / "cache")
    read = sum(len(part) for part in parts.values())
    bad = sum(len(part.bad_images) for part in parts.values())
    assert read + bad == 4


@cache
def _good() -> bytes:
    return encoded("PNG", "RGB")


@cache
def encoded(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB").convert(mode)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@cache
def _with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (24, 20), "red").save(out, "JPEG", exif=exif)
    return out.getvalue()


def seeds() -> list[bytes]:
    modes = [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "1"), ("TIFF", "CMYK")]
    found = [encoded(kind, "L" if kind == "GIF" else "RGB") for kind in FORMATS]
    for kind, mode in modes:
        if mode != "I;16":
            found.append(encoded(kind, mode))
    grey = io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100).save(grey, "PNG")
    return [*found, grey.getvalue(), _with_exif()]


@st.composite
def claimed(draw: DrawFn) -> bytes:
    """Headers that claim any size: a small file can ask for any amount of memory."""
    side = st.sampled_from([0, 1, 2, 16, 1000, 7999, 13_000, 65_535, 2**31 - 1])
    width, height = draw(side), draw(side)
    form = draw(st.sampled_from(["PNG", "PPM", "BMP", "GIF"]))
    body = draw(st.binary(max_size=64))
    if form == "PPM":
        kind = draw(st.sampled_from([b"P4", b"P5", b"P6"]))
        return kind + f"\n{width} {height}\n255\n".encode() + body
    if form == "BMP":
        bits = draw(st.sampled_from([1, 4, 8, 24, 32]))
        head = struct.pack("<IiiHHIIiiII", 40, width, height % 2**31, 1, bits, 0, 0, 1, 1, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + head + body
    if form == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", width % 65536, height % 65536, 0x80, 0, 0) + body
    depth, colour = draw(st.sampled_from([(1, 0), (8, 2), (8, 6), (16, 0), (8, 3), (16, 6)]))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * draw(st.sampled_from([0, 100, 100_000, 3_000_000])))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def shaped() -> SearchStrategy[bytes]:
    return claimed() | damaged([seed[:64] for seed in seeds()])


TARGETS = [Target("image file", feed, seeds, shaped, examples=60, share=0.6)]
