"""How a command ends that was asked to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from clipdrift.cli.terminal import say
from clipdrift.machine.signals import Interrupted, interruptions


@contextmanager
def said_when_interrupted(words: str) -> Iterator[None]:
    """While open, a signal ends the command with its exit code, once what is safe has been said."""
    try:
        with interruptions():
            yield
    except Interrupted as stopped:
        with suppress(OSError):  # the terminal may be gone
            say(words)
        raise typer.Exit(stopped.exit_code) from None
