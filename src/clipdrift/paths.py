"""Files named from outside: whether they lie where they should, and how much of them is read.

Every room that follows a path out of a folder, a table, a record or a model asks here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from clipdrift.errors import Fault

MODEL_FILES = frozenset({".json", ".safetensors", ".txt", ".model", ".jinja"})
"""Configuration, weights, tokenizer, preprocessing: what is read of a model's folder."""


def leads_out(path: Path | str, folder: Path | str) -> bool:
    """Whether a path, once all its links are followed, lies outside of a folder.

    Both are compared as the file system knows them, so a folder may itself be reached by a link.

    >>> leads_out("data/../secret", "data"), leads_out("data/a/../b", "data")
    (True, False)
    """
    try:
        real, inside = os.path.realpath(path), os.path.realpath(folder)
        return os.path.commonpath([real, inside]) != inside
    except ValueError:  # a NUL in a path, or another drive
        return True


def links_out(paths: Iterable[Path], folder: Path) -> list[Fault]:
    """A fault for each link of a folder that leads out of it.

    A snapshot in a hub's cache is made of links: to the blobs beside it, which are its own.
    """
    real = Path(os.path.realpath(folder))
    blobs = real.parent.parent / "blobs" if real.parent.name == "snapshots" else real
    return [
        Fault(str(path), "a file of the folder itself", "a link out of it", "Copy it there")
        for path in sorted(paths)
        if path.is_symlink() and leads_out(path, real) and leads_out(path, blobs)
    ]


def unfit_model_files(folder: Path) -> list[Fault]:
    """`links_out` of what is read of a model's folder, and pipes, which would be waited for."""
    read = [path for path in folder.iterdir() if path.suffix in MODEL_FILES]
    pipes = [
        path for path in sorted(read) if path.exists() and not (path.is_file() or path.is_dir())
    ]
    expected, got = "a plain file", "a pipe, socket or device"
    return links_out(read, folder) + [Fault(str(p), expected, got, "Remove it") for p in pipes]


def read_file(path: Path, at_most: int | None = None) -> bytes:
    """The content of a plain file, or of the one that a link leads to.

    It is looked at before it is opened: a pipe would be waited for without end, and a sparse file
    holds gigabytes without taking any room.

    Raises:
        OSError: not there, not readable, no plain file, or larger than `at_most` bytes; `strerror`
            says which.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no plain file but a pipe, socket or device", str(path))
        if at_most is not None and status.st_size > at_most:
            raise _too_large(path, status.st_size, at_most)
        with path.open("rb") as file:
            data = file.read() if at_most is None else file.read(at_most + 1)
    except ValueError:  # a NUL or a lone surrogate in its path
        raise FileNotFoundError(errno.ENOENT, "no such file or directory", str(path)) from None
    if (
        at_most is not None and len(data) > at_most
    ):  # it grew, or its file system does not know its size
        raise _too_large(path, len(data), at_most)
    return data


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's content, of which little is in memory at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _too_large(path: Path, size: int, at_most: int) -> OSError:
    text = f"{size / 1e6:,.0f} MB, where at most {at_most / 1e6:,.0f} MB are read"
    return OSError(errno.EFBIG, text, str(path))
