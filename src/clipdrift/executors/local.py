"""Worker processes on this machine, fed one key at a time; a worker that dies is replaced."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clipdrift.errors import ExecutorError, Fault
from clipdrift.executors import ATTEMPTS, Event, Executor, Program
from clipdrift.executors.process import STOP_SECONDS, how_it_ended, no_progress, start
from clipdrift.machine.devices import cpu_shares, every_device

PATIENCE_SECONDS = 1.0
"""How often silent workers are looked at."""


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[str]
    log: Path
    key: str | None = None
    heard: float = field(default_factory=time.monotonic)
    started: bool = False
    hung: bool = False


@dataclass(frozen=True)
class LocalExecutor:
    """Processes of this machine, one device each.

    Args:
        workers: processes at once; default: one per GPU; on a CPU as many as cores have room for.
        device: "auto" (the GPUs if there are any), "cpu", "cuda" (every GPU), "cuda:1", ...
        run_timeout: seconds without a sign of progress after which a worker is killed and its run
            tried again. Signs come every few seconds of training and after each reading.
        cpus: threads of a worker; default: OMP_NUM_THREADS, else its share of the cores. Records of
            one number of threads are equal bit for bit, whatever the number of workers.
    """

    workers: int | None = None
    device: str = "auto"
    run_timeout: float | None = None
    cpus: int | None = None

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`; closing the iterator tells busy workers to stop and save.

        Raises:
            ExecutorError: if workers cannot even start.
        """
        with self.kept(program) as workers:
            yield from workers.run(program, keys)

    @contextmanager
    def kept(self, program: Program) -> Iterator[Executor]:
        """This executor for one program, with workers that wait for the next call of `run`."""
        devices = every_device(self.device)
        asked = self.workers or (None if devices == ("cpu",) else len(devices))
        n_workers, threads = cpu_shares(asked, self.cpus)
        workers = _LocalWorkers(program, n_workers, devices, threads, self.run_timeout)
        try:
            yield _Kept(self.device, workers)
        finally:
            workers.stop()


@dataclass
class _LocalWorkers:
    """The workers of one program; worker number n has device n."""

    program: Program
    n_workers: int
    devices: tuple[str, ...]
    threads: int
    run_timeout: float | None
    _failed_starts: int = 0
    _workers: list[_Worker] = field(default_factory=list)
    _inbox: queue.Queue[tuple[_Worker, str | None]] = field(default_factory=queue.Queue)

    def run(self, keys: Sequence[str]) -> Iterator[Event]:
        """The events of all of the keys; closed early, it tells busy workers to stop and save."""
        pending, attempts = deque(keys), dict.fromkeys(keys, 0)
        try:
            for worker in self._workers:  # of an earlier call
                self._hand_out(worker, pending, attempts)
            for number in sorted(set(range(self.n_workers)) - {w.number for w in self._workers}):
                if pending:
                    self._hand_out(self._start(number), pending, attempts)
            while any(worker.key is not None for worker in self._workers):
                self._kill_hung()
                try:
                    worker, line = self._inbox.get(timeout=PATIENCE_SECONDS)
                except queue.Empty:
                    continue
                worker.heard = time.monotonic()
                if line is None:
                    yield from self._replace(worker, pending, attempts)
                    continue
                event: Event = json.loads(line)
                worker.started, self._failed_starts = True, 0
                if event["event"] == "started":
                    continue
                if event.get("last"):
                    worker.key = None
                    self._hand_out(worker, pending, attempts)
                yield event
        finally:
            if any(worker.key is not None for worker in self._workers):
                self.stop()

    def _start(self, number: int) -> _Worker:
        log = self.program.log_folder / f"worker-{number}.log"
        command = self.program.on(self.devices[number % len(self.devices)], self.threads)
        process = start(command, self.program.environment(self.threads), log)
        worker = _Worker(number, process, log)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self._inbox.put((worker, line))
        self._inbox.put((worker, None))

    def _hand_out(self, worker: _Worker, pending: deque[str], attempts: dict[str, int]) -> None:
        assert worker.process.stdin is not None
        if not pending:
            return
        worker.key, worker.heard = pending.popleft(), time.monotonic()
        attempts[worker.key] += 1
        try:
            worker.process.stdin.write(worker.key + "\n")
            worker.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died while idle; its end of file is in the inbox and puts the key back

    def _replace(
        self, dead: _Worker, pending: deque[str], attempts: dict[str, int]
    ) -> Iterator[Event]:
        """A worker ended: put its key back or give it up, and start another in its place."""
        code = dead.process.wait()
        self._workers.remove(dead)
        reason = how_it_ended(code, dead.log)
        if dead.hung and self.run_timeout is not None:
            reason = no_progress(self.run_timeout)
        self._require_a_start(dead, reason)
        if dead.key is not None and attempts[dead.key] < ATTEMPTS:
            yield {"event": "retry", "key": dead.key, "reason": reason}
            pending.append(dead.key)
        elif dead.key is not None:
            yield {"event": "lost", "key": dead.key, "reason": reason, "last": True}
        if pending:
            self._hand_out(self._start(dead.number), pending, attempts)

    def _require_a_start(self, dead: _Worker, reason: str) -> None:
        """Workers that cannot start are not the runs' fault, and no run will make them start."""
        self._failed_starts += not dead.started
        if self._failed_starts >= ATTEMPTS:
            raise ExecutorError(
                Fault(
                    "workers",
                    "processes that start",
                    f"{self._failed_starts} that did not: {reason}",
                    f"Mend what {dead.log} says; finished runs are safe",
                )
            )

    def _kill_hung(self) -> None:
        if self.run_timeout is None:
            return
        for worker in self._workers:
            silent = time.monotonic() - worker.heard
            if worker.key is not None and silent > self.run_timeout:
                worker.hung = True
                worker.process.kill()

    def stop(self) -> None:
        """End the workers: the idle ones by end of file, the busy ones after their step."""
        for worker in self._workers:
            if worker.key is not None:
                worker.process.terminate()
            elif worker.process.stdin is not None:
                worker.process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for worker in self._workers:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
            self._workers.clear()


@dataclass(frozen=True)
class _Kept:
    """An executor whose workers stay; see `LocalExecutor.kept`."""

    device: str
    workers: _LocalWorkers

    def run(self, program: Program, keys: Sequence[str]) -> Iterator[Event]:
        """See `Executor.run`."""
        assert program == self.workers.program
        return self.workers.run(keys)
