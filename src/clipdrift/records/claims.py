"""One run, one worker: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipdrift.records.folder import writing_to


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` while open; gives False at once if another process holds it.

    The kernel lets go of the lock when its holder dies, so a killed worker blocks nobody.
    """
    import fcntl

    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
