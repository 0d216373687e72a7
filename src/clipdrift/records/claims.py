"""One run, one worker: on one machine and across machines that share the study folder.

Within a machine an advisory lock excludes others; the kernel lets go of it when its holder dies.
Between machines such locks cannot be relied on, so a holder also keeps a lease: a numbered file
whose time it renews. A lease is free when it was given back, when it is of this very machine (the
lock proves its holder dead) or when it was not renewed for `LEASE_SECONDS`. Whoever then creates
the file of the next number has it, and only one can. Times are compared as the file server stamps
them, so clocks need not agree.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from clipdrift.paths import read_file
from clipdrift.records.writing import writing_to

LEASE_SECONDS = 90.0
"""A machine that is silent for this long has lost its claims; far above what a file system lags."""

RENEW_SECONDS = 10.0
GIVEN_BACK = "given back"
LEASE = re.compile(r"(.+)\.lease-([0-9]{1,12})")


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Hold the claim `path` while open; gives False at once if another process holds it."""
    lock = _lock(path)
    with ExitStack() as stack:
        with writing_to(path):
            path.parent.mkdir(exist_ok=True)
            try:
                stack.enter_context(_exclusive(lock))
            except Timeout:
                yield False
                return
            os.utime(lock)
            lease = _take(path, now=lock.stat().st_mtime)
        if lease is None:
            yield False
            return
        with _renewed(lease):
            yield True


def held(path: Path) -> bool:
    """Whether a process holds the claim now."""
    with claim(path) as mine:
        return not mine


def in_use(path: Path) -> bool:
    """Whether a process seems to hold the claim; for those who only look, and may write nothing."""
    number = max(_numbers(path), default=0) if path.parent.is_dir() else 0
    lease = _lease(path, number)
    holder = _holder(lease) if number else None
    if holder in (None, GIVEN_BACK):
        return False
    with suppress(OSError):
        if holder == _machine() and os.access(_lock(path), os.W_OK):
            try:
                with _exclusive(_lock(path)):
                    return False
            except Timeout:
                return True
        return time.time() - lease.stat().st_mtime < LEASE_SECONDS
    return False


def _exclusive(lock: Path) -> BaseFileLock:
    """An advisory lock to be entered; a `Timeout` at once where another holds it."""
    return FileLock(lock, blocking=False, thread_local=False)


def in_hand(folder: Path) -> list[str]:
    """Names of the claims in a folder that some process holds now."""
    leases = (
        (found[1], entry)
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if (found := LEASE.fullmatch(entry.name))
    )
    taken = {name for name, lease in leases if _holder(lease) != GIVEN_BACK}
    return sorted(name for name in taken if held(folder / name))


def _holder(lease: Path) -> str | None:
    try:
        return read_file(lease).decode()
    except (OSError, ValueError):
        return None


def _take(path: Path, *, now: float) -> Path | None:
    """The lease of the next number, if the last one is free and nobody is faster."""
    last = max(_numbers(path), default=0)
    if last and not _free(_lease(path, last), now):
        return None
    lease = _lease(path, last + 1)
    try:
        handle = os.open(lease, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(handle, "w") as file:
        file.write(_machine())
    numbers = _numbers(path)
    if max(numbers) > last + 1:  # what was read above was long out of date
        lease.unlink(missing_ok=True)
        return None
    for number in numbers:
        if number <= last:
            _lease(path, number).unlink(missing_ok=True)
    return lease


def _free(lease: Path, now: float) -> bool:
    try:
        with lease.open() as file:  # opening makes a network file system ask its server
            renewed, holder = os.fstat(file.fileno()).st_mtime, file.read()
    except FileNotFoundError:
        return False  # others are at it right now
    return holder in (GIVEN_BACK, _machine()) or now - renewed > LEASE_SECONDS


@contextmanager
def _renewed(lease: Path) -> Iterator[None]:
    """Renew a lease from a thread while open, then give it back."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_SECONDS):
            with suppress(OSError):
                os.utime(lease)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            lease.write_text(GIVEN_BACK)


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.{_machine()}.lock")


def _lease(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.lease-{number}")


def _numbers(path: Path) -> list[int]:
    """Of the leases of a claim; copies that a program for backups laid beside them are none."""
    found = (LEASE.fullmatch(entry.name) for entry in path.parent.iterdir())
    return [int(lease[2]) for lease in found if lease and lease[1] == path.name]


@cache
def _machine() -> str:
    """This kernel under this name: equal only where locks are known to work between processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = ""
    return sha256(f"{socket.gethostname()}\n{boot}".encode()).hexdigest()[:16]
