"""Workers' work in the process that asks for it: starting Python and torch takes seconds each time.

For studies of which only the records are looked at. That workers start, die and are replaced is
the matter of the tests that start them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clipdrift.executors import Event, Program
from clipdrift.records import StudyFolder
from clipdrift.run_state import CHECKPOINT_SECONDS
from clipdrift.signals import StopRequest
from clipdrift.worker import Worker, serve


@dataclass(frozen=True)
class InProcess:
    """One worker with one thread, as `LocalExecutor(1, "cpu", cpus=1)` but for the process."""

    device: str = "cpu"

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`."""
        folder, _, cache = program.command[-3:]
        stop, threads = StopRequest(), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            worker = Worker(
                StudyFolder(Path(folder)), Path(cache), self.device, stop, CHECKPOINT_SECONDS
            )
            for key in keys:
                answers = io.StringIO()
                serve(worker, io.StringIO(key), answers, stop)
                yield from (
                    e for e in map(json.loads, answers.getvalue().splitlines()) if "key" in e
                )
        finally:
            torch.set_num_threads(threads)


__all__ = ["InProcess"]
