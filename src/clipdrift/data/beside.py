"""Images with captions in a folder: `a.txt` beside `a.jpg`, each line of it a caption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clipdrift.data.decode import open_image, suffixes
from clipdrift.data.folder import VALIDATION
from clipdrift.data.parts import file_stamp, identity_of
from clipdrift.data.rows import Rows
from clipdrift.data.shards import MAX_TEXT, lines_of
from clipdrift.errors import DataError, Fault
from clipdrift.paths import leads_out, read_file
from clipdrift.spec.datasets import DatasetSpec, TransferSpec

PARTS = {"train": "train", **dict.fromkeys(VALIDATION, "val"), "test": "test"}
SHOWN = 5


def beside_rows(spec: DatasetSpec) -> dict[str, Rows]:
    """The images below `spec.folder`, or below its `train/`, `test/` and maybe `val/`.

    Folders in it may be of any depth and mean nothing. Names that begin with a dot are ignored;
    links are followed as long as they stay inside.

    Raises:
        DataError: no such folder, a part without images, links that leave the folder.
    """
    where = f"{spec.name}.folder"
    root = Path(str(spec.folder)).expanduser()
    if not root.is_dir():
        got = f"the file {root}" if root.exists() else f"{root}, which does not exist"
        raise DataError(Fault(where, "a folder of images with captions", got, "Check the path"))
    root = root.resolve()
    folders = {part: root / name for name, part in PARTS.items() if (root / name).is_dir()}
    if not folders.keys() & {"train", "test"}:
        folders = {"train": root}
    if isinstance(spec, TransferSpec) and "test" in folders:
        folders = {"test": folders["test"]}
    return {part: _rows(folder, root, spec, where) for part, folder in folders.items()}


def _rows(folder: Path, root: Path, spec: DatasetSpec, where: str) -> Rows:
    images = [path for path in below(folder) if path.suffix.lower() in suffixes()]
    endings = [f".{column.removeprefix('.')}" for column in spec.caption_columns]
    beside = [[image.with_suffix(ending) for image in images] for ending in endings]
    out = [path for own in (images, *beside) for path in own if leads_out(path, root)]
    if out or not images:
        got = ", ".join(str(path.relative_to(root)) for path in out[:SHOWN]) or f"none in {folder}"
        expected = "links that stay inside the folder" if out else "images"
        raise DataError(Fault(where, expected, got, "Copy them" if out else "Check the path"))
    return Rows(
        where=where,
        cells=[[_captions(path, where) for path in own] for own in beside],
        names=[str(path.relative_to(root)) for path in images],
        load=lambda row: open_image(images[row]),
        content=lambda row: images[row],
        identity=identity_of("beside", [file_stamp(path) for path in images]),
    )


def _captions(path: Path, where: str) -> list[str] | None:
    if not path.exists():
        return None
    try:
        return lines_of(read_file(path, MAX_TEXT))
    except OSError as error:
        expected, got = "a text file", f"{path}: {error.strerror}"
        raise DataError(Fault(where, expected, got, "Check it")) from error


def below(folder: Path) -> Iterator[Path]:
    """Files of a folder at any depth, in a fixed order; none whose name begins with a dot."""
    for at, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(at, name) for name in sorted(files) if not name.startswith("."))
