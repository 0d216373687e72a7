"""Class folders with any names and links, tables and shards of images, the cache of pixels."""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.images import SIZE, encoded
from fuzz.strategies import ODD_TEXTS
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square
from clipdrift.spec.datasets import DatasetSpec

CSV = b"image,label\na.png,cat\nb.png,dog\na.png,dog\nb.png,cat\n"


def _prepared(beside: Path, **source: Any) -> None:
    spec = DatasetSpec(name="set", max_bad_images=2, **source)
    parts = prepare(spec, Square(SIZE, "bicubic"), cache_dir=beside / "cache")
    for part in parts.values():
        assert part.pixels.shape == (len(part), SIZE, SIZE, 3)
        assert len(part.class_names) >= 2


def feed_tree(data: bytes, folder: Path) -> None:
    """Each line is a path; one that ends with > and a path is a link to it."""
    root = folder / "set"
    root.mkdir()
    for line in data.splitlines()[:40]:
        name, _, goal = line.partition(b">")
        path = os.path.join(os.fsencode(root), *name.split(b"/"))
        inside = os.path.normpath(path).startswith(os.fsencode(root) + b"/")
        with suppress(OSError, ValueError):  # names that this file system does not have
            if inside:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            if inside and goal:
                os.symlink(goal, path)
            elif inside and not os.path.islink(path):
                with open(path, "xb") as file:
                    file.write(encoded("PNG", "RGB"))
    skipped = ["unsorted"] if b"unsorted/" in data else []
    _prepared(folder, folder=str(root), skip_classes=skipped)


def feed_csv(data: bytes, folder: Path) -> None:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(encoded("PNG", "RGB"))
    (folder / "set.csv").write_bytes(data)
    _prepared(folder, files={"train": str(folder / "set.csv")})


def feed_pairs(data: bytes, folder: Path) -> None:
    """The first byte says as what: rows of JSON, a shard, or the texts beside images."""
    kind, data = data[:1], data[1:]
    (folder / "a.png").write_bytes(encoded("PNG", "RGB"))
    (folder / "b.png").write_bytes(encoded("PNG", "L"))
    source: dict[str, Any] = {"files": {"train": str(folder / "set.jsonl")}}
    column = "caption"
    if kind == b"t":
        source, column = {"files": {"train": str(folder / "set.tar")}}, "txt"
        (folder / "set.tar").write_bytes(data)
    elif kind == b"f":
        first, _, second = data.partition(b"\0")
        (folder / "a.txt").write_bytes(first)
        (folder / "b.txt").write_bytes(second)
        source, column = {"folder": str(folder)}, "txt"
    else:
        (folder / "set.jsonl").write_bytes(data)
    spec = DatasetSpec(name="set", max_bad_images=1, caption_column=column, **source)
    for part in prepare(spec, Square(SIZE, "bicubic"), cache_dir=folder / ".cache").values():
        assert part.captions is not None
        assert all(text.strip() for own in part.captions for text in own)


def feed_parquet(data: bytes, folder: Path) -> None:
    (folder / "set.parquet").write_bytes(data)
    _prepared(folder, files={"train": str(folder / "set.parquet")})


def feed_footer(data: bytes, folder: Path) -> None:
    """A good file whose footer has other bytes: two for the place and one for the value, each."""
    seeds = parquet_seeds()
    good = bytearray(seeds[data[0] % len(seeds)] if data else seeds[0])
    length = int.from_bytes(good[-8:-4], "little")
    for at in range(1, len(data) - 2, 3):
        place = int.from_bytes(data[at : at + 2], "little") % (length + 8)
        good[len(good) - 8 - length + place] = data[at + 2]
    feed_parquet(bytes(good), folder)


def feed_cache(data: bytes, folder: Path) -> None:
    """One file of a cache entry is overwritten; it is made again or refused, never believed."""
    (folder / "a.png").write_bytes(encoded("PNG", "RGB"))
    (folder / "b.png").write_bytes(encoded("PNG", "L"))
    (folder / "set.csv").write_bytes(CSV)
    source = {"files": {"train": str(folder / "set.csv")}}
    _prepared(folder, **source)
    files = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
    if data:
        files[data[0] % len(files)].write_bytes(data[1:])
    _prepared(folder, **source)


def tree_seeds() -> list[bytes]:
    return [
        b"cat/1.png\ncat/2.png\ndog/1.png\ndog/2.png\n",
        b"train/cat/1.png\ntrain/dog/1.png\ntest/cat/1.png\ntest/dog/1.png\n",
        b"cat/1.png\ncat/2.png\ndog/1.png>../cat/1.png\ndog/2.png>/etc/passwd\n",
        b"cat/1.png\ncat/2.png\nunsorted/a/b/1.png\ndog>cat\n",
        b"train/1.png\ntrain/2.png\ncat/1.png\ncat/2.png\n",
        b"cat/1.png\ncat/again>..\ndog/1.png\ndog/a/b/1.png\n",
        b"train/cat/1.png\ntrain/dog/1.png\ntest>train\n",
        b"".join(
            f"{part}/cat/1.png\n{part}/dog/1.png\n".encode() for part in ("train", "val", "test")
        ),
    ]


def pairs_seeds() -> list[bytes]:
    rows = b'{"image": "a.png", "caption": ["a cat", "two"]}\n{"image": "b.png", "caption": "b"}\n'
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (
            ("1.png", encoded("PNG", "RGB")), ("1.txt", b"a cat"),
            ("2.png", encoded("PNG", "L")), ("2.txt", b"a dog\ntwo"),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [b"j" + rows, b"t" + out.getvalue(), b"fa cat\0a dog\ntwo"]


def csv_seeds() -> list[bytes]:
    return [
        CSV,
        CSV.replace(b"cat", b"0").replace(b"dog", b"1"),
        CSV.replace(b"a.png", b"../a.png"),
        CSV.replace(b"cat", b"cat|dog"),
    ]


@cache
def parquet_seeds() -> list[bytes]:
    picture = {"bytes": encoded("PNG", "RGB"), "path": "a.png"}
    columns: list[dict[str, list[Any]]] = [
        {"image": [picture] * 4, "label": ["cat", "dog"] * 2},
        {"image": [picture["bytes"]] * 4, "label": ["cat", "dog"] * 2},
        {"image": ["a.png", "b.png"] * 2, "label": ["cat", "dog"] * 2},
        {"image": ["../a.png", None] * 2, "label": [0, 1] * 2},
        {"image": ["a.png", "b.png"] * 2, "label": [["cat", "dog"], ["a dog runs"]] * 2},
    ]
    tables = [pa.table(one) for one in columns]
    coded = [_coded(table) for table in (tables[1], tables[2])]
    groups = [_parquet(table, row_group_size=1) for table in (tables[0], coded[1])]
    return [*map(_parquet, (*tables, *coded)), *groups]


def _coded(table: pa.Table) -> pa.Table:
    """Columns as pandas writes categories: numbers, and a dictionary that they point into."""
    return pa.table({name: table[name].dictionary_encode() for name in table.column_names})


def _parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", row_group_size=row_group_size)
    return out.getvalue()


def footer_seeds() -> list[bytes]:
    return [bytes([number]) for number in range(len(parquet_seeds()))]


def cache_seeds() -> list[bytes]:
    return [
        b"",
        b"\0{}",
        b"\x01\x93NUMPY\x01\0v\0{'descr': '|u1', 'fortran_order': False}",
        b"\x02",
    ]


@st.composite
def trees(draw: DrawFn) -> bytes:
    usual = ["cat", "dog", "train", "test", "val", "unsorted", ".git", *ODD_TEXTS]
    name = st.sampled_from(usual) | st.text(max_size=4)
    end = st.sampled_from(["1.png", "2.JPG", "3.heic", "x.txt", "..png", "again"])
    paths = st.lists(name, max_size=4).flatmap(lambda p: end.map(lambda e: "/".join([*p, e])))
    links = st.sampled_from(
        ["", "", "", ">..", ">/etc", ">.", ">cat", ">../cat", ">../../up", ">nowhere"]
    )
    lines = draw(st.lists(st.tuples(paths, links).map("".join), max_size=8))
    extra = draw(st.sampled_from(tree_seeds()))
    return extra + "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def csvs(draw: DrawFn) -> bytes:
    cell = st.sampled_from(["a.png", "b.png", "cat", "dog", "0", "1", *ODD_TEXTS]) | st.text(
        max_size=5
    )
    rows = draw(st.lists(st.tuples(cell, cell), max_size=6))
    quoted = [",".join('"' + c.replace('"', '""') + '"' for c in row) for row in rows]
    return CSV + "\n".join(quoted).encode("utf-8", "surrogatepass")


@st.composite
def parquets(draw: DrawFn) -> bytes:
    """Good Parquet files of odd content."""
    n = draw(st.integers(0, 6))
    picture = encoded("PNG", "RGB")
    cells: list[Any] = [
        st.lists(
            st.sampled_from(["a.png", None, "", "/etc/passwd", "..", "\0"]), min_size=n, max_size=n
        ),
        st.lists(st.sampled_from([picture, b"", None, b"x"]), min_size=n, max_size=n),
        st.lists(st.integers(-1, 3), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.floats(), min_size=n, max_size=n),
        st.lists(st.lists(st.integers(0, 2), max_size=2), min_size=n, max_size=n),
        st.lists(st.none(), min_size=n, max_size=n),
        st.lists(
            st.fixed_dictionaries(
                {
                    "bytes": st.sampled_from([picture, None]),
                    "path": st.sampled_from(["a.png", None]),
                }
            ),
            min_size=n,
            max_size=n,
        ),
        st.lists(st.sampled_from(["cat", "dog", "", "0", "1", None]), min_size=n, max_size=n),
    ]
    table = pa.table({"image": draw(st.one_of(cells)), "label": draw(st.one_of(cells))})
    names = draw(st.sampled_from([None, ["cat", "dog"], "cat", [1, 2], [], [["a"]], {"0": "a"}]))
    if names is not None:
        text = str({"info": {"features": {"label": {"names": names}}}}).replace("'", '"')
        table = table.replace_schema_metadata({b"huggingface": text.encode()})
    if draw(st.booleans()):
        with suppress(pa.ArrowException):  # not every type has a dictionary, or can be written so
            coded = _coded(table).replace_schema_metadata(table.schema.metadata)
            _parquet(coded)
            table = coded
    return _parquet(table, draw(st.sampled_from([None, 1, 3])))


@st.composite
def footers(draw: DrawFn) -> bytes:
    edit = st.binary(min_size=3, max_size=3)
    return draw(st.binary(min_size=1, max_size=1)) + b"".join(draw(st.lists(edit, max_size=4)))


@st.composite
def pairs(draw: DrawFn) -> bytes:
    """Rows of JSON of odd content."""
    value = st.recursive(
        st.none() | st.booleans() | st.floats() | st.sampled_from(["a.png", *ODD_TEXTS]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner),
        max_leaves=4,
    )
    keys = st.sampled_from(["image", "caption", "other"])
    rows = draw(st.lists(st.dictionaries(keys, value), max_size=5))
    return pairs_seeds()[0] + "\n".join(map(json.dumps, rows)).encode("utf-8", "surrogatepass")


TARGETS = [
    Target("images with captions", feed_pairs, pairs_seeds, pairs, examples=40, share=0.4),
    Target("class folders", feed_tree, tree_seeds, trees, examples=40, share=0.4),
    Target("table of images, CSV", feed_csv, csv_seeds, csvs, examples=40, share=0.4),
    Target(
        "table of images, Parquet", feed_parquet, parquet_seeds, parquets, examples=10, share=0.05
    ),
    Target("footer of a Parquet file", feed_footer, footer_seeds, footers, examples=10, share=0.05),
    Target("entry of the cache", feed_cache, cache_seeds, examples=25, share=0.2),
]
