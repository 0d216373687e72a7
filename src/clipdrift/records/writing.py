"""How files are written so that none is torn, and the system's refusals in plain words."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipdrift.errors import Fault, StudyFolderError

HALF_WRITTEN = ".*.tmp"
"""Names of what a killed `atomic_write` leaves, beside the file that it was to be."""

OURS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Not "head (conflicted copy).safetensors" or "._head", which other programs lay beside a file."""


def ours(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that a pattern names, sorted, without those that other programs left."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if all(map(OURS.fullmatch, path.relative_to(folder).parts)) and path.is_file()
    )


def require_free(place: Path, *, ours: bool, step: str) -> None:
    """Refuse to write where something else lies.

    Args:
        ours: what is there was written by the same command. step: what to do where it was not.

    Raises:
        StudyFolderError: if `place` is a file or has something in it, and it is not ours.
    """
    taken = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if taken and not ours:
        raise StudyFolderError(Fault(str(place), "a new or empty folder", "another", step))


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _umask()
"""Read once, before there are threads that could see it changed."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    with writing_to(path):
        path.parent.mkdir(exist_ok=True)  # and no more: a study folder that is gone stays gone
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            as_usual(Path(name))
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if os.name == "nt":  # folders have no descriptor there, and renames are journalled
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def as_usual(path: Path) -> None:
    """Give a temporary file, which is private, the mode of a new file: results are for whoever may
    read the folder."""
    path.chmod(0o666 & ~_UMASK)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into an error a user can act on."""
    try:
        yield
    except OSError as error:
        raise StudyFolderError(
            Fault(
                str(path),
                "a folder that can be written",
                str(error.strerror or error),
                "Free space, mend the permissions or choose another --out; finished runs are safe",
            )
        ) from None
