"""What is asked of a worker: a run, to its end or until an epoch. Text, as executors carry it."""

from __future__ import annotations

from typing import NamedTuple

from clipdrift.study.plan import PlannedRun

BETWEEN = " until "
"""No run id has a space."""


class Task(NamedTuple):
    """A run to be measured; until: the epoch after which it pauses, None for its end."""

    run: PlannedRun
    until: int | None = None

    @property
    def key(self) -> str:
        """The task as a line of text."""
        return self.run.run_id + ("" if self.until is None else f"{BETWEEN}{self.until}")

    @property
    def epochs(self) -> int:
        """How far it goes."""
        return self.until or self.run.config.schedule.epochs


def task_of(key: str) -> tuple[str, int | None]:
    """The run id and the epoch of `Task.key`.

    >>> task_of("pets-lora-lr0.001-seed7-1a2b3c4d until 2")
    ('pets-lora-lr0.001-seed7-1a2b3c4d', 2)
    """
    run_id, _, until = key.partition(BETWEEN)
    return run_id, int(until) if until else None
