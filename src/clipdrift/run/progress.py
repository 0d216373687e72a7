"""How far a run under way is: a small file in its folder, for those who look from outside."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipdrift.paths import read_file
from clipdrift.records import atomic_write

if TYPE_CHECKING:
    from clipdrift.run.epochs import EpochEvent

STATE_FILE, PROGRESS_FILE = "interrupted.safetensors", "progress.json"
"""Of a run that is not done; no part of its record."""

EVERY_SECONDS = 5.0
"""Between two writings: runs of short epochs do not pay for them."""


@dataclass(frozen=True)
class Progress:
    """Epochs done, of how many, and seconds for each; None before two were seen."""

    epoch: int
    epochs: int
    epoch_seconds: float | None

    @property
    def seconds_left(self) -> float | None:
        """
        >>> Progress(3, 10, 2.0).seconds_left
        14.0
        """
        return self.epoch_seconds and self.epoch_seconds * (self.epochs - self.epoch)


class ProgressFile:
    """Told of every epoch of a run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS_FILE
        self.first: tuple[int, float] | None = None
        self.written = float("-inf")

    def __call__(self, done: EpochEvent) -> None:
        """
        Raises:
            StudyFolderError: if the disk is full or the folder cannot be written.
        """
        now = time.monotonic()
        first, since = self.first = self.first or (done.epoch, now)
        if now - self.written < EVERY_SECONDS:
            return
        self.written = now
        seconds = (now - since) / (done.epoch - first) if done.epoch > first else None
        facts = {"epoch": done.epoch, "epochs": done.epochs, "epoch_seconds": seconds}
        atomic_write(self.path, json.dumps(facts))


def read_progress(folder: Path) -> Progress | None:
    """As it was last written; None if it was not, or is damaged."""
    try:
        found = Progress(**json.loads(read_file(folder / PROGRESS_FILE)))
        return found if 0 <= found.epoch <= found.epochs else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
