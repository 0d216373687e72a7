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
from clipdrift.machine.signals import StopRequest
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.run.state import CHECKPOINT_SECONDS
from clipdrift.spec import StudySpec
from clipdrift.study.measure import run_study
from clipdrift.study.worker import Worker, serve


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


def measured_study(spec: StudySpec, out: Path, cache_dir: Path, *, n_runs: int) -> StudyFolder:
    """A study of so many runs, all measured here and come to their end."""
    outcome = run_study(spec, out, executor=InProcess(), cache_dir=cache_dir)
    assert (outcome.measured, outcome.failed) == (n_runs, {})
    return StudyFolder(out)


def by_method(study: StudyFolder) -> dict[str, RunRecord]:
    """The records of a study with one run of each method."""
    found, faults = study.records()
    assert faults == []
    assert len({record.method for record in found}) == len(found)
    return {record.method: record for record in found}


__all__ = ["InProcess", "by_method", "measured_study"]
