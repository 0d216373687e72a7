"""SLURM: runs as elements of a job array, which belong to the scheduler and outlive this process.

This side submits, then follows what the workers say in their output files and which jobs the
queue still knows. If it ends, the jobs go on; the next call follows them instead of submitting
their runs again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clipdrift.executors import ATTEMPTS, Event, Program
from clipdrift.executors.slurm_queue import Queue, last_words, outcome
from clipdrift.executors.slurm_script import Element, earlier_elements, submit

ABSENT_POLLS = 3
"""A job must be out of the queue this often before its silence counts: shared file systems lag."""


@dataclass(frozen=True)
class SlurmExecutor:
    """Job arrays of one worker per element, each with a share of the runs.

    A job that reaches its time limit is told 90 s before, stops and puts itself back into the
    queue; one that is preempted or whose node fails is put back by SLURM.

    Args:
        workers: jobs that run at once; default: as many as the cluster admits.
        cpus: cores (and threads) of a job.
        gpus: GPUs of a job, 0 or 1.
        minutes: time limit of a job.
        runs_per_job: runs that a job measures one after another.
        options: further parameters by their names in submitit: partition, account, qos, mem, ...
        poll_seconds: between two looks at the queue and the output files.
    """

    workers: int | None = None
    cpus: int = 1
    gpus: int = 0
    minutes: int = 240
    runs_per_job: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    poll_seconds: float = 5.0

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`; closing the iterator leaves the jobs to the scheduler.

        Raises:
            ExecutorError: if SLURM or submitit is not there, or the submission is refused.
        """
        return _Following(self, program).run(keys)


@dataclass
class _Following:
    """The elements of one call, from submission until each key is settled."""

    executor: SlurmExecutor
    program: Program
    queue: Queue = field(default_factory=Queue)
    elements: list[Element] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)

    def run(self, keys: Sequence[str]) -> Iterator[Event]:
        if not keys:
            return
        self.deaths = dict.fromkeys(keys, 0)
        self.elements = earlier_elements(self.program, self.queue.jobs() or {}, set(keys))
        if self.elements:
            yield _word(f"following SLURM jobs of an earlier call: {_jobs(self.elements)}")
        followed = {key for element in self.elements for key in element.keys}
        yield from self._submit([key for key in keys if key not in followed])
        while self.elements:
            waiting = self.queue.jobs()  # before reading, so that a job's last words are read
            again: list[str] = []
            for element in self.elements:
                if waiting is None or waiting.get(element.job) != "PD":
                    yield from element.read()
                in_queue = waiting is None or element.job in waiting
                element.absent = 0 if in_queue else element.absent + 1
            for element in self.elements:
                if element.keys and element.absent >= ABSENT_POLLS:
                    yield from self._bury(element, again)
            self.elements = [e for e in self.elements if e.keys and e.absent < ABSENT_POLLS]
            yield from self._submit(again)
            if self.elements:
                time.sleep(self.executor.poll_seconds)

    def _submit(self, keys: list[str]) -> Iterator[Event]:
        if keys:
            new = submit(
                self.program,
                keys,
                device=self.executor.device,
                cpus=self.executor.cpus,
                gpus=self.executor.gpus,
                minutes=self.executor.minutes,
                runs_per_job=self.executor.runs_per_job,
                at_once=self.executor.workers,
                longest_array=self.queue.longest_array(),
                options=self.executor.options,
            )
            self.elements += new
            yield _word(
                f"SLURM job {_jobs(new)}: {len(keys)} runs in {len(new)} elements. They go on if "
                f"this command ends; the same command follows them, scancel {_jobs(new)} ends them"
            )

    def _bury(self, element: Element, again: list[str]) -> Iterator[Event]:
        """A job ended with keys unsettled: the one it was at is tried again or given up.

        A job that never said a word died of its surroundings, which all of its keys would meet.
        """
        reason = f"job {element.job} {outcome(element.job)}{last_words(element.errors)}"
        guilty = element.keys[:1] if element.spoke else list(element.keys)
        for key in element.keys:
            if key in guilty:
                self.deaths[key] += 1
                if self.deaths[key] >= ATTEMPTS:
                    yield {"event": "lost", "key": key, "reason": reason, "last": True}
                    continue
                yield {"event": "retry", "key": key, "reason": reason}
            again.append(key)


def _word(text: str) -> Event:
    return {"event": "prepare", "text": text}


def _jobs(elements: Iterable[Element]) -> str:
    return " ".join(sorted({element.job.split("_")[0] for element in elements}))
