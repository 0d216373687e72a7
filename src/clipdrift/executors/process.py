"""A worker as a process of this machine: how it is started, and in which words its end is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipdrift.machine.signals import APART
from clipdrift.records.writing import writing_to

STOP_SECONDS = 30.0
"""How long a worker that was told to stop may take to end its step and save."""


def start(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> subprocess.Popen[str]:
    """Start a worker with pipes for its keys and answers; its standard error goes to `log`."""
    with writing_to(log):
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as errors:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
                **APART,
            )


def how_it_ended(code: int, log: Path) -> str:
    """Why a worker ended, with the last words it had."""
    how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if code == -9:
        how += " (often: out of memory)"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:  # somebody cleared the folder of logs
        lines = []
    return f"worker {how}; last words: {lines[-1][:200]}" if lines else f"worker {how}"


def no_progress(seconds: float) -> str:
    """Why a worker was killed that said nothing for its limit."""
    return f"no progress in {seconds:g} s (--run-timeout), killed"
