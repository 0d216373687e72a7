"""What a study was at when it was killed, told from its words and the files that it left."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STATE, WEIGHTS, RECORD = "interrupted.safetensors", "head.safetensors", "record.json"


@dataclass(frozen=True)
class Kill:
    """When a study was killed, and what it left on disk."""

    phase: str
    workers_too: bool
    records: int
    states: int
    half_written: int
    tables: int

    def __str__(self) -> str:
        whom = "all" if self.workers_too else "without its workers"
        return (
            f"{self.phase}, {whom}: {self.records} records, {self.states} saved states, "
            f"{self.half_written} half-written files, {self.tables} tables"
        )


@dataclass(frozen=True)
class Watch:
    """A command that was started on a study folder.

    Args:
        log: what it says.
        before: half-written files that were there already.
        began: when it was started, in seconds since the epoch.
    """

    out: Path
    log: Path
    before: set[Path]
    began: float

    @classmethod
    def over(cls, out: Path, log: Path) -> Watch:
        """From now on; the command is yet to be started."""
        return cls(out, log, half_written(out), time.time())

    def killed(self, *, workers_too: bool) -> Kill:
        """What is there, just after the command was killed."""
        return Kill(
            phase=self.phase(),
            workers_too=workers_too,
            records=len(list(self.out.glob(f"runs/*/{RECORD}"))),
            states=len(list(self.out.glob(f"runs/*/{STATE}"))),
            half_written=len(half_written(self.out)),
            tables=len(list(self.out.glob("tables/*.csv"))),
        )

    def phase(self) -> str:
        """Planning, training (or reading), saving, recording, analysing, at the end."""
        said = self.log.read_text().split()
        if "Report:" in said:
            return "at the end"
        if "analysing" in said:
            return "analysing"
        if "measuring" not in said:
            return "planning"
        new = {path.name for path in half_written(self.out) - self.before}
        if any(STATE in name for name in new):
            return "saving"
        if any(RECORD in name for name in new) or self._recording():
            return "recording"
        return "training"

    def _recording(self) -> bool:
        """Whether a run has its weights since the start, but no record, or its state as well."""
        for path in self.out.glob("runs/*"):
            weights, record, state = (path / name for name in (WEIGHTS, RECORD, STATE))
            with suppress(FileNotFoundError):
                fresh = weights.stat().st_mtime > self.began
                if fresh and not (record.exists() and not state.exists()):
                    return True
        return False


def half_written(out: Path) -> set[Path]:
    """Temporary files of a study folder, by its own naming and by that of safetensors."""
    return set(out.glob("**/.*.tmp")) | set(out.glob("runs/**/.tmp*"))


__all__ = ["RECORD", "Kill", "Watch"]
