"""What an input may do: be read, or be refused in plain words; nothing outside, nothing started."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.target import Target

from clipdrift.checkpoint.bounds import COMMAND
from clipdrift.data.parquet import COMMAND as LOOK_AT_FOOTER
from clipdrift.errors import ClipdriftError, printable

FAULT = re.compile(r".+: expected .+, got .+\. .+[.?]")
OUT_OF_MEMORY = re.compile(r"MemoryError|can't allocate memory|Cannot allocate memory|bad_alloc")
MAX_FAULT = 20_000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {
    **dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"), (0, 1)),
    **dict.fromkeys(("os.rename", "os.link"), (0, 2)),
    "os.symlink": (1, 2),
}
"""Audit events that change a folder, and which of their arguments are the changed paths."""
STARTING = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"),
    *("socket.connect", "socket.getaddrinfo", "pickle.find_class"),
}
APART = [[COMMAND], [LOOK_AT_FOOTER]]
"""Programs that may start: what they look at can end or stop them, and nothing else."""


@dataclass(frozen=True)
class Finding:
    """One thing that must not happen; `place` tells findings of one cause from others."""

    kind: str
    place: str
    text: str


class Watch:
    """Sees, through Python's audit events, what is written where and what is started."""

    def __init__(self) -> None:
        self.allowed: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open":
            if isinstance(args[2], int) and args[2] & WRITING:
                self._wrote(event, args[0])
        elif event in CHANGING:
            folders = [held for held in args[1:] if isinstance(held, int) and held > 2]
            first, last = CHANGING[event]
            for path in args[first:last]:
                self._wrote(event, path, f"/proc/self/fd/{folders[-1]}" if folders else "")
        elif event in STARTING and list(args[1:2]) not in APART:
            self.seen.append(f"{event} {args!r}"[:300])

    def _wrote(self, event: str, path: Any, folder: str = "") -> None:
        """A path may be relative to an open folder, as those of shutil.rmtree are."""
        if path is None or isinstance(path, int):
            return
        parent, name = os.path.split(os.path.join(folder, os.fsdecode(path)))
        real = os.path.join(os.path.realpath(parent), name)
        if event == "open":  # which follows a link; the others change the link itself
            real = os.path.realpath(real)
        if real != "/dev/null" and not real.startswith(str(self.allowed)):
            self.seen.append(f"{event} {real}")

    @contextmanager
    def inside(self, folder: Path) -> Iterator[list[str]]:
        self.seen = []
        self.allowed = os.path.realpath(folder)
        try:
            yield self.seen
        finally:
            self.allowed = None


WATCH = Watch()


def judge(target: Target, data: bytes) -> Finding | None:
    """Feed one input in a folder of its own; None if it was read or refused as it should be."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="clipdrift-fuzz-", dir=base))
    refused: ClipdriftError | None = None
    try:
        with WATCH.inside(folder) as seen:
            try:
                target.feed(data, folder)
            except ClipdriftError as error:
                refused = error
    except Exception as error:
        return Finding("traceback", _place(error), traceback.format_exc(limit=-6))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if seen:
        return Finding("outside", seen[0].split(" ")[0], "\n".join(seen[:5]))
    return None if refused is None else _told_badly(refused)


def _told_badly(error: ClipdriftError) -> Finding | None:
    if not error.faults:
        return Finding("fault", "empty", repr(error))
    for fault in error.faults:
        line, place = str(fault), f"{type(error).__name__} {fault.expected[:60]}"
        if OUT_OF_MEMORY.search(line):
            return Finding("memory", place, line[:2000])
        if not FAULT.fullmatch(line) or printable(line) != line or len(line) > MAX_FAULT:
            return Finding("fault", place, repr(line[:2000]))
    return None


def _place(error: Exception) -> str:
    """The kind of error and the last line of clipdrift that it passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "clipdrift" in f.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


__all__ = ["Finding", "judge"]
