"""Webdataset shards: tar files in which `a.jpg` stands beside `a.txt` or `a.cls`.

Nothing is unpacked: members are read where they lie in the file.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.data.decode import MAX_BYTES, UnreadableImageError, open_image, suffixes
from clipdrift.data.naming import whole_number
from clipdrift.data.parts import file_stamp, identity_of
from clipdrift.data.rows import Rows, asked_columns, content_of
from clipdrift.errors import DataError, Fault
from clipdrift.spec.datasets import DatasetSpec

MAX_MEMBERS = 10_000_000
MAX_TEXT = 1_000_000
"""Bytes of a member with captions or a label."""


@dataclass(frozen=True)
class _Member:
    shard: Path
    name: str
    start: int
    size: int

    def read(self, at_most: int) -> bytes:
        """Its bytes; none where it claims more than is read."""
        if self.size > at_most:
            return b""
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def shard_rows(path: Path, spec: DatasetSpec, where: str) -> Rows:
    """The images of one shard, or of all that a name with `*` stands for, in order of their names.

    Members of one sample have one name up to the first dot, as in webdataset: an image, and one
    with the suffix `caption_column`, each line of which is a caption, or `label_column`, which
    holds a number or a name.

    Raises:
        DataError: no such file, no tar file, a shard without images.
    """
    shards = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    images: list[_Member] = []
    texts: dict[tuple[Path, str], _Member] = {}
    wanted = [f".{column.removeprefix('.')}" for _, column in asked_columns(spec)]
    for shard in shards:
        for member in _members(shard, where):
            stem, suffix = _sample(member.name)
            if f".{suffix.rpartition('.')[2]}" in suffixes():
                images.append(member)
            elif f".{suffix}" in wanted:
                texts[shard, f"{stem}.{suffix}"] = member
    if not images:
        got = f"none in {len(shards):,} shards" if shards else f"{path}, which is not there"
        raise DataError(Fault(where, "shards with images", got, "Check the path"))

    def lines(image: _Member, suffix: str) -> list[str] | None:
        found = texts.get((image.shard, _sample(image.name)[0] + suffix))
        return None if found is None else lines_of(found.read(MAX_TEXT))

    cells: list[list[Any]] = [[lines(image, suffix) for image in images] for suffix in wanted]
    return Rows(
        where=where,
        cells=cells
        if spec.paired or spec.several
        else [labels_of([" ".join(own or ()) for own in cells[0]])],
        names=[f"{image.shard.name} {image.name}" for image in images],
        load=lambda row: open_image(_bytes(images[row])),
        content=lambda row: content_of(lambda at: images[at].read(MAX_BYTES), row),
        identity=identity_of("shards", [file_stamp(shard) for shard in shards], wanted),
    )


def labels_of(texts: Sequence[str]) -> list[Any]:
    """Labels as numbers where all are."""
    numbers = [whole_number(text) for text in texts]
    return list(texts) if None in numbers else numbers


def lines_of(data: bytes) -> list[str]:
    """The captions of a text file: its lines that are not empty."""
    return [
        text for line in data.decode("utf-8-sig", "replace").splitlines() if (text := line.strip())
    ]


def _bytes(member: _Member) -> bytes:
    data = member.read(MAX_BYTES)
    if len(data) < member.size:
        raise UnreadableImageError(f"more than {MAX_BYTES:,} bytes, or a shard that ends before")
    return data


def _sample(name: str) -> tuple[str, str]:
    """`a/b.c.jpg` -> `a/b` and `c.jpg`."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _members(shard: Path, where: str) -> Iterator[_Member]:
    """Plain files alone: a link in a shard would name another member, or a file of this machine."""
    expected, step = "an uncompressed tar file", "Write or download it again"
    if not shard.is_file():
        raise DataError(Fault(where, "a file", f"{shard}, which is not there", "Check the path"))
    try:
        with tarfile.open(shard, "r:") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise DataError(
                        Fault(where, f"at most {MAX_MEMBERS:,} members", "more", "Split the shard")
                    )
                if member.isreg():
                    yield _Member(shard, member.name, member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined]  # else all of them are kept
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(Fault(where, expected, f"{shard}: {error}", step)) from error
