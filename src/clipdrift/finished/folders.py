"""Folders that are there whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipdrift.errors import Fault, StudyFolderError
from clipdrift.records.writing import writing_to


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` once all in it is written and proven.

    Raises:
        StudyFolderError: if `out` has something in it, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        got = "one with files in it" if out.is_dir() else "a file"
        raise StudyFolderError(
            Fault(str(out), "a new folder", got, "Choose another --out or remove it")
        )
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    with holder as name:
        folder = Path(name) / "model"
        with writing_to(out):
            folder.mkdir()
            yield folder
            folder.replace(out)
