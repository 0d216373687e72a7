"""Requests to stop: Ctrl-C, a scheduler's SIGTERM, a terminal that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
APART: dict[str, Any] = {"start_new_session": True}
if sys.platform == "win32":
    APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
"""For a process that Ctrl-C is not to reach: its parent hears it and then ends it."""
HEARD = "stopping after the current step; press again to end at once"


class Interrupted(KeyboardInterrupt):
    """The process was asked to end; a KeyboardInterrupt, so that nothing takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number


class StopRequest:
    """Remembers a signal until somebody asks. At rest, the process ends at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.at_rest = True

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """By the custom of shells: 128 and the signal's number."""
        return 128 + (self.number or 0)

    def listen(self) -> None:
        """From now on, signals are remembered."""
        for number in _heard():
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if self.at_rest:
            raise SystemExit(self.exit_code)


@contextmanager
def interruptions() -> Iterator[None]:
    """Turn the signals into `Interrupted` while open; a second one is as sudden as it ever was.

    The first is answered on standard error at once: workers may take a while to end their step.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        with suppress(OSError):  # the terminal may be gone; os.write, as a print may be under way
            os.write(2, f"\n{signal.Signals(number).name}: {HEARD}\n".encode())
        raise Interrupted(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, interrupt) for number in _heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[signal.Signals]:
    """The signals to heed; nohup has SIGHUP ignored, and that is left so."""
    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
