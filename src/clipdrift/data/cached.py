"""What lies in a cache of prepared images and converted models, and its clearing.

Only what `cache` writes is looked at or removed: folders named by a key, with its description in
them, and what a crash left of them. Whatever else lies in the folder stays.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clipdrift.data.cache import ENTRY, remove
from clipdrift.errors import DataError, Fault
from clipdrift.paths import read_file

_KEY = re.compile(r"([0-9a-f]{32})(\.unfinished)?")
DAY = 86_400.0


@dataclass(frozen=True)
class Cached:
    """One prepared part: dataset as "eurosat (train)", images, bytes on disk, last use (Unix time).

    dataset: None of what was left unfinished, or written by an older version.
    """

    path: Path
    dataset: str | None
    images: int | None
    size_bytes: int
    used: float

    @property
    def days(self) -> float:
        """Since it was last used."""
        return max(0.0, time.time() - self.used) / DAY


def cached(cache_dir: Path) -> list[Cached]:
    """Everything in a cache, what was used last first; none where there is no such folder.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        found = [_entry(path) for path in cache_dir.iterdir() if _is_entry(path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        step = "Check CLIPDRIFT_CACHE or --cache"
        fault = Fault(str(cache_dir), "a folder that can be read", str(error.strerror), step)
        raise DataError(fault) from error
    return sorted(found, key=lambda entry: -entry.used)


def _is_entry(path: Path) -> bool:
    named = _KEY.fullmatch(path.name)
    if named is None or path.is_symlink() or not path.is_dir():
        return False
    return bool(named[2]) or os.path.isfile(path / ENTRY)


def _entry(path: Path) -> Cached:
    about = _described(path / ENTRY)
    sizes, used = 0, path.stat().st_mtime
    for file in path.rglob("*"):
        status = file.lstat()
        sizes += status.st_size
        used = max(used, status.st_mtime)
    return Cached(path, about.get("dataset"), about.get("count"), sizes, used)


def _described(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def clear(cache_dir: Path, *, older_than: float = 0.0) -> Iterator[Cached]:
    """Remove what was not used for so many days; yields each entry once it is gone.

    What a process prepares now stays. Who has images open keeps them until it ends.
    """
    for entry in cached(cache_dir):
        if entry.days < older_than:
            continue
        lock = FileLock(cache_dir / f"{entry.path.name.removesuffix('.unfinished')}.lock")
        try:
            with lock.acquire(timeout=0):
                remove(entry.path)
        except Timeout:
            continue
        except OSError as error:
            step = "Check its permissions"
            raise DataError(
                Fault(str(entry.path), "a folder that can be removed", str(error), step)
            ) from error
        yield entry
